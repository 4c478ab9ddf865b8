"""Signatures, compiled to predicates over columns."""
