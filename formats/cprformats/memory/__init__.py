"""Guest RAM out of a state file: what was sent of each block, and where it lies."""
