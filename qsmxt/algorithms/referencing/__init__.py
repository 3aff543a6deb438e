"""Referencing: the roster, one line a method."""

from qsmxt.algorithms.referencing.csf import csf as csf
from qsmxt.algorithms.referencing.mean import mean as mean
from qsmxt.algorithms.referencing.none import none as none
from qsmxt.algorithms.referencing.region import region as region
