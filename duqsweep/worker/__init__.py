"""Worker side: evaluates one trial from its folder. Nothing heavy is imported here."""
