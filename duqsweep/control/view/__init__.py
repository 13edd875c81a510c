"""What one sees while a sweep runs, and the words and tables that all views share."""
