"""Merging: the roster, one line a method."""

from qsmxt.algorithms.merging.echo_mean import echo_mean as echo_mean
from qsmxt.algorithms.merging.two_pass import two_pass as two_pass
