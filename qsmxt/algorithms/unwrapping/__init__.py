"""Phase unwrapping: the roster, one line a method."""
