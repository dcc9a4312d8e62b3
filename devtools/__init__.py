"""Tools that only development needs."""
