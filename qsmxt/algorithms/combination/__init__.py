"""Coil combination: the roster, one line a method."""

from qsmxt.algorithms.combination.aspire import aspire as aspire
from qsmxt.algorithms.combination.mcpc3ds import mcpc3ds as mcpc3ds
