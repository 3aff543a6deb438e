"""Susceptibility-weighted imaging: the roster, one line a method."""
