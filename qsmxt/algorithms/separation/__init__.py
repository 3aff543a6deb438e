"""Source separation: the roster, one line a method."""
