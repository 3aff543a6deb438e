"""Masking: the roster, one line a method."""
