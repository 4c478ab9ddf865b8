"""Signatures in Python: the interface for their authors, and the bounds within which they run."""
