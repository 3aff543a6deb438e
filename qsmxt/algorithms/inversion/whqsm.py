r"""Weak-harmonic QSM (WH-QSM): total variation with a harmonic remnant of the background field.

.. math:: \min_{\chi,h} \tfrac12\|W(e^{is(D\chi + h)} - e^{isf})\|_2^2 + s^2\lambda\|\nabla\chi\|_1
          + s^2\frac{\beta}{2}\|M\nabla^2 h\|_2^2

:math:`f` is the local field (ppm, ``(x, y, z)``), :math:`D` the unit dipole, :math:`h` (ppm) what background removal
left, harmonic inside the mask :math:`M` up to the ``harmonic_weight`` :math:`\beta` (mm^4), :math:`s` the phase per
field (rad/ppm, :mod:`~qsmxt.algorithms.inversion.phase`), :math:`\lambda` the ``weight``, :math:`W` as in
:mod:`~qsmxt.algorithms.inversion.nltv`. ADMM splits :math:`\nabla\chi`, :math:`D\chi + h` and :math:`\nabla^2 h`, with
:math:`\nabla^2` the periodic second difference per mm^2.

It helps after background removal by spherical means and hurts on a field without background, part of which it takes
for background. Departure from the paper: the data penalty.

Parameters
    ``criterion``: how a ``weight`` of ``auto`` is found (:mod:`~qsmxt.algorithms.inversion.regularisation`).
    ``penalty``: :math:`\rho/\lambda` of the split of the prior. ``harmonic_penalty``, ``data_penalty``: of the two
    other splits. ``reference_echo_time``: gives s; ``auto`` lets the strongest field have 3 rad. ``tolerance``,
    ``iterations``: where the iteration ends.

References
----------
Milovic et al. 2019 (doi:10.1002/mrm.27483).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qsmxt.algorithms import kernels
from qsmxt.algorithms.domain import Domain
from qsmxt.algorithms.engine import Engine, placed, to_host_all
from qsmxt.algorithms.inversion.phase import phase_scale
from qsmxt.algorithms.inversion.regularisation import CRITERIA, weight_of
from qsmxt.algorithms.inversion.splitting import PhaseData, Splitting
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class WHQSMParameters:
    """Parameters of :func:`whqsm`."""

    weight: float = parameter(
        1e-4, unit="ppm mm", above=0, auto=True, help="weight of the total variation; larger is smoother"
    )
    criterion: str = parameter("equalisation", choices=CRITERIA, help="how a weight of auto is found")
    harmonic_weight: float = parameter(150.0, unit="mm^4", above=0, help="how strictly the remnant is harmonic")
    harmonic_penalty: float = parameter(3.0, unit="mm^4", above=0, help="ADMM penalty of the harmonic split")
    penalty: float = parameter(
        100.0, unit="mm/ppm", above=0, help="ADMM penalty over weight; changes the speed, hardly the map"
    )
    data_penalty: float = parameter(1.0, above=0, help="ADMM penalty of the data split")
    reference_echo_time: float = parameter(
        "auto", unit="s", above=0, auto=True, help="echo time at which phases are compared"
    )
    tolerance: float = parameter(5e-3, at_least=0, help="relative change of the map at which iteration stops")
    iterations: int = parameter(150, at_least=1, help="most iterations")


class _HarmonicData:
    """Data step with an unknown harmonic field; the target of the map is what the harmonic field leaves."""

    def __init__(self, domain: Domain, data: PhaseData, parameters: WHQSMParameters, engine: Engine) -> None:
        self.data, self.engine = data, engine
        laplacian = -kernels.negative_laplacian(domain.grid)
        mu, muh = np.float32(parameters.data_penalty), np.float32(parameters.harmonic_penalty)
        denominator = mu + muh * laplacian * laplacian
        self.laplacian = engine.send(laplacian)
        self.from_data = engine.send(mu / denominator)
        self.from_split = engine.send(muh * laplacian / denominator)
        beta = np.float32(parameters.harmonic_weight)
        self.keep = engine.send(np.where(domain.mask, muh / (beta + muh), np.float32(1)).astype(np.float32))
        self.shape = domain.grid.shape
        self.harmonic, self.split, self.dual = (engine.zeros(self.shape) for _ in range(3))

    def __call__(self, predicted: Any, target: Any) -> None:
        engine = self.engine
        # target + harmonic is still z - s of the last iteration
        spectrum = engine.forward(target + self.harmonic - predicted)
        engine.scale(spectrum, self.from_data)
        split = engine.forward(self.split)
        engine.scale(split, self.from_split)
        spectrum += split
        curvature = spectrum * self.laplacian
        self.harmonic = engine.inverse(spectrum, self.shape)
        argument = engine.inverse(curvature, self.shape)
        argument += self.dual
        value = self.keep * argument
        argument -= value
        value -= argument
        self.dual, self.split = argument, value
        predicted += self.harmonic
        self.data(predicted, target)
        target -= self.harmonic


@method(
    stage="inversion",
    key="whqsm",
    title="Weak-harmonic QSM",
    consumes=("local_field", "mask"),
    optional=("field_noise", "magnitude", "field_strength"),
    produces=("chi",),
    parameters=WHQSMParameters,
    references=("milovic2019",),
    sentence=(
        "Susceptibility was computed by weak-harmonic QSM (weight {weight}, harmonic weight {harmonic_weight:g})."
    ),
    cost=Cost(bytes_per_voxel=102, seconds_per_megavoxel=12),
    on_device=True,
)
def whqsm(
    local_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: WHQSMParameters = WHQSMParameters(),
    *,
    progress: Progress | None = None,
    field_noise: np.ndarray | None = None,
    magnitude: np.ndarray | None = None,
    field_strength: float | None = None,
) -> np.ndarray:
    """Susceptibility (ppm) from a local field (ppm) with a harmonic remnant; see the module.

    Parameters
    ----------
    local_field
        Relative field of the sources in the mask, ppm, float32 ``(x, y, z)``; outside the mask it does not matter.
    mask
        Region in which susceptibility is sought, bool ``(x, y, z)``.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`WHQSMParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    field_noise
        Standard deviation of the field, ppm, float32 ``(x, y, z)``, whose inverse gives the weights; voxels of zero
        have no weight.
    magnitude
        Magnitude of the echoes, arbitrary unit, float32 ``(echo, x, y, z)`` or ``(x, y, z)``: the weights if there is
        no ``field_noise``. Without either all voxels weigh the same.
    field_strength
        Strength of B0, T, float; needed only if ``reference_echo_time`` is a number.

    Returns
    -------
    numpy.ndarray
        Susceptibility, ppm, float32 ``(x, y, z)``; zero outside the mask.

    Raises
    ------
    InputError
        If a shape is not that of the grid, the mask is empty or not of 0 and 1, or the local field is complex or has
        NaN or Inf in the mask; if ``field_noise`` or ``magnitude`` has no positive value in the mask; if the criterion
        ``discrepancy`` is chosen without ``field_noise``; if ``reference_echo_time`` is a number and ``field_strength``
        is missing.

    Examples
    --------
    >>> from qsmxt.algorithms.inversion.nltv import nltv
    >>> from qsmxt.algorithms.inversion.whqsm import whqsm
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> field = head.local_field + 0.2 * (head.total_field - head.local_field)  # a fifth of the background is left
    >>> maps = [method(field, head.mask, head.grid) for method in (nltv, whqsm)]
    >>> [round(nrmse(chi, head.chi, head.mask)) for chi in maps]  # percent of the true susceptibility
    [41, 4]
    """
    engine, domain = placed("local_field", local_field, mask, grid)
    field_noise, magnitude = to_host_all(field_noise, magnitude)
    weights = domain.weights_or_mask(field_noise, magnitude)
    domain = domain.trusting(weights)
    scale = phase_scale(domain, parameters.reference_echo_time, field_strength)
    weights *= weights
    weight = weight_of(parameters.weight, parameters.criterion, domain, field_noise, parameters.penalty)
    rho = parameters.penalty * weight
    prior = engine.shrinkage(domain.grid)
    solver = Splitting(domain, prior, float(scale) / parameters.penalty, rho, parameters.data_penalty, engine=engine)
    fit = PhaseData(domain.field * scale, weights, parameters.data_penalty, engine=engine)
    solver.start(fit)
    data = _HarmonicData(domain, fit, parameters, engine)
    chi = solver.iterate(data, parameters.iterations, parameters.tolerance, progress)
    return engine.finish(domain, chi / float(scale))
