"""Signatures of a run: selection, trial loading in a confined process, and replacement as generations."""
