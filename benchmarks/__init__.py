"""What `make bench` runs: each figure side by side with its alternative, in one run."""
