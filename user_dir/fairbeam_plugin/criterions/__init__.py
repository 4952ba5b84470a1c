"""fairbeam's criterions."""
