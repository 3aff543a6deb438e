"""Masking: the roster, one line a method: generators, refinements, correction of inhomogeneity."""

from qsmxt.algorithms.masking.bet import bet as bet
from qsmxt.algorithms.masking.close import close as close
from qsmxt.algorithms.masking.dilate import dilate as dilate
from qsmxt.algorithms.masking.erode import erode as erode
from qsmxt.algorithms.masking.fill import fill as fill
from qsmxt.algorithms.masking.gaussian import gaussian as gaussian
from qsmxt.algorithms.masking.gmm import gmm as gmm
from qsmxt.algorithms.masking.hagberg import hagberg as hagberg
from qsmxt.algorithms.masking.homogeneity import homogeneity as homogeneity
from qsmxt.algorithms.masking.largest import largest as largest
from qsmxt.algorithms.masking.open import open as open
from qsmxt.algorithms.masking.otsu import otsu as otsu
from qsmxt.algorithms.masking.peel import peel as peel
from qsmxt.algorithms.masking.percentile import percentile as percentile
from qsmxt.algorithms.masking.quality import quality as quality
from qsmxt.algorithms.masking.robust import robust as robust
from qsmxt.algorithms.masking.smooth import smooth as smooth
from qsmxt.algorithms.masking.snr import snr as snr
from qsmxt.algorithms.masking.trim import trim as trim
from qsmxt.algorithms.masking.value import value as value
from qsmxt.algorithms.masking.ventricles import ventricles as ventricles
