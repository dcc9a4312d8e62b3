"""`make router-bench`: measures what the license guard costs a request.

One upstream takes 200 ms for each completion. In front of it the same server runs twice, once with
the guard (license, budget, journal on disk) and once without. 32 callers drive them in turn.
"""
