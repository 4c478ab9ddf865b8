"""Records as rows and columns: the first step of a worker, without what anything means."""
