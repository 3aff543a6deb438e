"""Phase-offset removal: the roster, one line a method."""

from qsmxt.algorithms.offset.mcpc3ds import mcpc3ds as mcpc3ds
from qsmxt.algorithms.offset.none import none as none
