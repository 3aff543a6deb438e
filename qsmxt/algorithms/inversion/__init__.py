"""Dipole inversion: the roster, one line a method."""

from qsmxt.algorithms.inversion.tikhonov import tikhonov as tikhonov
from qsmxt.algorithms.inversion.tkd import tkd as tkd
from qsmxt.algorithms.inversion.tsvd import tsvd as tsvd
from qsmxt.algorithms.inversion.tv import tv as tv
