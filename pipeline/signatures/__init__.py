"""Signatures of a run: which are on, read apart first, and replaced as generations."""
