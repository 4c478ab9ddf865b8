"""What every process of the pipeline has: the plan of the run, its books, its rights, its signals, its logs."""
