"""A sweep's trials as its files show them, and the reference that their times are scaled to."""
