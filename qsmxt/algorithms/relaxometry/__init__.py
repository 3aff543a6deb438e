"""Relaxometry: the roster, one line a method."""
