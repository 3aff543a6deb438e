"""Phase unwrapping: the roster, one line a method."""

from qsmxt.algorithms.unwrapping.laplacian import laplacian as laplacian
from qsmxt.algorithms.unwrapping.romeo import romeo as romeo
