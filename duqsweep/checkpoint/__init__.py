"""Checkpoint folders: where they are, what their files hold, which layers they name; no torch."""
