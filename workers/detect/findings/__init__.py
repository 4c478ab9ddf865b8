"""Findings: what they show, and how they are written."""
