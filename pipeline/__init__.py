"""Moves records, and does not know what they mean."""

VERSION = "0.1.0"
