"""Signatures in Python: what their authors write against, and the bounds that they are kept in."""
