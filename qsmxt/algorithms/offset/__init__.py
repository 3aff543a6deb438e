"""Phase-offset removal: the roster, one line a method."""
