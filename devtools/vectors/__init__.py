"""The golden vectors of the signed documents: `python -m devtools.vectors` writes them.

Invariants: every run gives the same bytes; every key comes from a published seed and is only for
tests. Expected results are written by hand; the runners of `tests/conformance` check them.
"""
