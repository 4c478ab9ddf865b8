"""Findings: their contents, and the formats in which they are written."""
