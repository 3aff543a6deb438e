"""Dipole inversion: the roster, one line a method."""
