"""Common to all pipeline processes: the plan of the run, accounting, privileges, signals, and logging."""
