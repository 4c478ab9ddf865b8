"""What commands have in common: groups, errors, and the completion of values."""
