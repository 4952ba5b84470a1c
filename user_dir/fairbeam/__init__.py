"""fairbeam."""
