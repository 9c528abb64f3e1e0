"""Tasks, their text and their metrics."""
