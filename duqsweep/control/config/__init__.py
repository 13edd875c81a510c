"""From conf/ and overrides to a checked sweep: its settings and its search space."""
