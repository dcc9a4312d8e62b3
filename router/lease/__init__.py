"""The lease directory: this router's own key, and the lease it holds. No network."""
