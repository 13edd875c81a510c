"""What to try next: the Optuna study behind a sweep, and the search that uses it."""
