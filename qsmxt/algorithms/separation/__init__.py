"""Source separation: the roster, one line a method."""

from qsmxt.algorithms.separation.chiseparation import chiseparation as chiseparation
from qsmxt.algorithms.separation.closedform import closedform as closedform
from qsmxt.algorithms.separation.decompose import decompose as decompose
from qsmxt.algorithms.separation.hcchisep import hcchisep as hcchisep
from qsmxt.algorithms.separation.r2starqsm import r2starqsm as r2starqsm
from qsmxt.algorithms.separation.wavesep import wavesep as wavesep
