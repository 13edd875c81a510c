"""What a sweep's files say: trials, objectives, the front and how sure it is."""
