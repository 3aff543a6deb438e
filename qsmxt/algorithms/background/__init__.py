"""Background field removal: the roster, one line a method."""
