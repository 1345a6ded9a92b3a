"""What is shown of runs: figures, tables, and a page."""
