"""The same engine on events that were recorded as JSON lines."""
