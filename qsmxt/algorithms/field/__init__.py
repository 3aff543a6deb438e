"""Field mapping: the roster, one line a method."""

from qsmxt.algorithms.field.joint_fit import joint_fit as joint_fit
from qsmxt.algorithms.field.linear_fit import linear_fit as linear_fit
from qsmxt.algorithms.field.nonlinear_fit import nonlinear_fit as nonlinear_fit
from qsmxt.algorithms.field.weighted_fit import weighted_fit as weighted_fit
