"""The cropped grid of an inversion; see :mod:`qsmxt.algorithms.domain`, where it lives because other stages use it."""

from qsmxt.algorithms.domain import PADDING as PADDING
from qsmxt.algorithms.domain import WEIGHT_CAP as WEIGHT_CAP
from qsmxt.algorithms.domain import Domain as Domain
from qsmxt.algorithms.domain import change as change
from qsmxt.algorithms.domain import checked_mask as checked_mask
from qsmxt.algorithms.domain import combined as combined
from qsmxt.algorithms.domain import filtered as filtered
from qsmxt.algorithms.domain import masked as masked
from qsmxt.algorithms.domain import scale as scale
from qsmxt.algorithms.domain import update as update
