"""Every reservation on disk before its tokens are spent: an append-only journal beside the state.

    journal = Journal.open(file, at=now)             # replays; what was open counts as spent
    await journal.update(lambda state: state.serving(terms, revision, now))
    await journal.reserve(request_id, terms, tokens, now)    # returns when it is durable
    await journal.settle(request_id, used, now)              # None: usage unknown, the reservation
    await journal.release(request_id)                        # the upstream was never reached
    journal.state                                    # the present state, counters included
    journal.blocked                                  # why nothing can be spent, or None
    await journal.close()

One event loop uses a journal; files are written on a thread of its own. Callers that wait together
share one fsync.
"""
