"""fairbeam's networks as fairseq models."""
