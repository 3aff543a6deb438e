"""Coil combination: the roster, one line a method."""
