"""The golden vectors of the signed documents: `python -m devtools.vectors` writes them.

Invariants: the same bytes in each run; every key is made from a published seed and is for tests
alone. Expected results are stated by hand; the runners of `tests/conformance` check them.
"""
