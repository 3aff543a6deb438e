"""Dipole inversion: the roster, one line a method."""

from qsmxt.algorithms.inversion.amppe import amppe as amppe
from qsmxt.algorithms.inversion.hdqsm import hdqsm as hdqsm
from qsmxt.algorithms.inversion.ilsqr import ilsqr as ilsqr
from qsmxt.algorithms.inversion.l1qsm import l1qsm as l1qsm
from qsmxt.algorithms.inversion.medi import medi as medi
from qsmxt.algorithms.inversion.ndi import ndi as ndi
from qsmxt.algorithms.inversion.network import network as network
from qsmxt.algorithms.inversion.nltgv import nltgv as nltgv
from qsmxt.algorithms.inversion.nltv import nltv as nltv
from qsmxt.algorithms.inversion.qsmart import qsmart as qsmart
from qsmxt.algorithms.inversion.rts import rts as rts
from qsmxt.algorithms.inversion.star import star as star
from qsmxt.algorithms.inversion.tfi import tfi as tfi
from qsmxt.algorithms.inversion.tgv import tgv as tgv
from qsmxt.algorithms.inversion.tgv_phase import tgv_phase as tgv_phase
from qsmxt.algorithms.inversion.tikhonov import tikhonov as tikhonov
from qsmxt.algorithms.inversion.tkd import tkd as tkd
from qsmxt.algorithms.inversion.totalnetwork import totalnetwork as totalnetwork
from qsmxt.algorithms.inversion.tsvd import tsvd as tsvd
from qsmxt.algorithms.inversion.tv import tv as tv
from qsmxt.algorithms.inversion.tvtfi import tvtfi as tvtfi
from qsmxt.algorithms.inversion.whqsm import whqsm as whqsm
