"""The portal issues, sells, renews, leases and revokes licenses."""
