"""Programs: which are wanted, their source and constants, and how they become instructions."""
