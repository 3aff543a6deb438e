"""Referencing: the roster, one line a method."""
