"""The `router-license` command, one module for each group of commands."""
