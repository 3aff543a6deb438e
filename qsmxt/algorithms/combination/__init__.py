"""Coil combination: the roster, one line a method; the first serves any echo times and is the default of conversion."""

from qsmxt.algorithms.combination.mcpc3ds import mcpc3ds as mcpc3ds

# isort: split
from qsmxt.algorithms.combination.aspire import aspire as aspire
