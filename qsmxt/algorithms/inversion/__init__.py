"""Dipole inversion: the roster, one line a method."""

from qsmxt.algorithms.inversion.tv import tv as tv
