"""Information about the processes that generate events."""
