"""The engine: which rules match which rows."""
