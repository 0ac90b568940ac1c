"""A whole study, one part after the other."""
