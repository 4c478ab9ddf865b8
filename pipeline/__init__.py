"""Moves records, and does not know what they mean."""
