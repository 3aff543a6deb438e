"""Susceptibility-weighted imaging: the roster, one line a method."""

from qsmxt.algorithms.swi.clearswi import clearswi as clearswi
from qsmxt.algorithms.swi.homodyne import homodyne as homodyne
from qsmxt.algorithms.swi.smwi import smwi as smwi
