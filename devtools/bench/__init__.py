"""`make bench`: renewals a second at the real endpoint, compared with a floor.

The floor does only the work no renewal can avoid, under the same gunicorn and with the same
database. `docs/contributing/bench.md` describes the method.
"""
