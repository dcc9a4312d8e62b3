"""The router's side: what verifies licenses, and what holds and renews leases."""
