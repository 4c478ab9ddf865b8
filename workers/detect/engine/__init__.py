"""The engine: decides which rules match which rows."""
