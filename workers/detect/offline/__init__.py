"""The same engine over events that were recorded as lines."""
