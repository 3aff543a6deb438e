"""Relaxometry: the roster, one line a method."""

from qsmxt.algorithms.relaxometry.arlo import arlo as arlo
from qsmxt.algorithms.relaxometry.loglinear import loglinear as loglinear
from qsmxt.algorithms.relaxometry.nonlinear import nonlinear as nonlinear
from qsmxt.algorithms.relaxometry.numart2star import numart2star as numart2star
