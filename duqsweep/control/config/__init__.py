"""What was asked for: conf/ to a checked sweep, its settings and its search space."""
