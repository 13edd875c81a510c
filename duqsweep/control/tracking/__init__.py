"""MLflow's copy of a sweep."""
