"""Field mapping: the roster, one line a method."""
