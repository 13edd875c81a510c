"""What is left to read: front.csv, front.png and report.html."""
