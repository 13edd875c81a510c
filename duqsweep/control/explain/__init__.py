"""Where a policy call's cost lies."""
