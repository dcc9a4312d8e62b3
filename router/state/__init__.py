"""What outlives the process: one signed state file, and the journal of tokens beside it."""
