"""The signed documents of the GenAI Smart Router: bytes in, facts out.

Pure: no clock, no I/O, no private keys. Both sides share it, and neither side knows the other.
"""
