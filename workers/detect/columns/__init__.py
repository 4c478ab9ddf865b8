"""Fields of events as columns, with a key for each distinct value."""
