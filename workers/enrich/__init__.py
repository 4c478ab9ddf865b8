"""What is known of the processes that events are of."""
