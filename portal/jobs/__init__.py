"""Work that happens after a commit: the worker loop and the handlers of each job kind."""
