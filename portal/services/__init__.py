"""Use cases, one module per noun. A service flushes and never commits."""
