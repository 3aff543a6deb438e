"""Merging: the roster, one line a method."""
