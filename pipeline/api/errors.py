"""What the Python API raises."""

from __future__ import annotations


class Error(Exception):
    """headrace cannot do what it was asked for; the text says why and, if it can be mended, how."""
