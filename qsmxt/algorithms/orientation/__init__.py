"""Multiple orientations: the roster, one line a method."""
