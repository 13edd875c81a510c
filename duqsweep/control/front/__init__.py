"""The front of a sweep: its measures and objectives, who is on it, and how sure that is."""
