"""What the license guard costs a request: `make router-bench`.

One upstream that takes 200 ms for each completion; the same server in front of it twice, with the
guard (license, budget, journal on disk) and without; 32 callers at once, driven in turn.
"""
