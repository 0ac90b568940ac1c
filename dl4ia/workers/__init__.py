"""Several processes for one command, here or on a Ray cluster, and the jobs that they share."""
