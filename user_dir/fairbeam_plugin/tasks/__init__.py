"""fairbeam's tasks."""
