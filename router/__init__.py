"""The router's side: it verifies licenses, and holds and renews leases."""
