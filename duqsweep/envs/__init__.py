"""Simulated environments: LIBERO's suites and our own, `duq_mini`."""
