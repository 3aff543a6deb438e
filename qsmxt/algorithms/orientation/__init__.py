"""Multiple orientations: the roster, one line a method."""

from qsmxt.algorithms.orientation.cosmos import cosmos as cosmos
from qsmxt.algorithms.orientation.sti import sti as sti
