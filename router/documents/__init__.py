"""What signed documents are worth here: the trusted keys, and the decision they lead to."""
