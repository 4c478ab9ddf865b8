"""Artifacts that a run keeps (`--capture`): what workers request, what the collector reads, what is stored."""
