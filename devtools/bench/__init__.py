"""`make bench`: renewals per second of the real endpoint beside a floor.

The floor does what no renewal can do without, under the same gunicorn and over the same database.
How it is measured is told in `docs/contributing/bench.md`.
"""
