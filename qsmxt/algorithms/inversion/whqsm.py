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
from functools import partial
from typing import Any

import numpy as np

from qsmxt.algorithms import fourier, kernels
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.domain import Domain, replaced
from qsmxt.algorithms.engine import HOST, Engine, placed, to_host_all
from qsmxt.algorithms.inversion.phase import phase_scale
from qsmxt.algorithms.inversion.regularisation import CRITERIA, weight_of
from qsmxt.algorithms.inversion.splitting import DataTerm, PhaseData, Splitting
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


class _HarmonicSplitting(Splitting):
    """The solver with an unknown harmonic field besides that of the map.

    The half spectrum of that field is kept, so what data and prediction leave of it need no transform of their own.
    """

    def __init__(
        self, domain: Domain, prior: Any, threshold: float, rho: float, parameters: WHQSMParameters, engine: Engine
    ) -> None:
        super().__init__(domain, prior, threshold, rho, parameters.data_penalty, engine=engine)
        self._penalties = np.float32(parameters.data_penalty), np.float32(parameters.harmonic_penalty)
        self._laplacian = engine.send(-kernels.negative_laplacian(domain.grid))
        self._keep = self._penalties[1] / (np.float32(parameters.harmonic_weight) + self._penalties[1])
        self._mask = engine.send(domain.mask)
        self._dual = engine.zeros(self.grid.shape)
        self._harmonic: Any = 0.0

    def start(self, data: DataTerm, chi: Any = None) -> None:
        super().start(data, chi)
        if self.engine is HOST:
            self._harmonic, split = (np.zeros_like(self._spectra[0]) for _ in range(2))
            self._spectra.append(split)
            return
        self._split = self.engine.zeros(self.grid.shape)

    def _advance(self, data: DataTerm) -> float:
        right, target, split = self._spectra
        transfers = self._gain, self._back, self.dipole, self._laplacian
        fourier.rows_changed(self._spectra, _solve_rows, self._harmonic, *transfers, *self._penalties)
        moved = replaced(self.chi, right)
        fourier.planes_exchanged(target, self.grid.shape[2], partial(data.planes, None))
        fourier.planes_exchanged(split, self.grid.shape[2], self._bend)
        self._transform_prior(right)
        return moved

    def _bend(self, start: int, stop: int, planes: np.ndarray) -> None:
        _bend(planes, self._mask[start:stop], self._keep, self._dual[start:stop])

    def _advance_elsewhere(self, data: DataTerm) -> float:
        engine, shape, old = self.engine, self.grid.shape, self.chi
        laplacian, mu, muh = self._laplacian, float(self._penalties[0]), float(self._penalties[1])
        fitted, right, split = (engine.forward(v) for v in (self._target, self._right, self._split))
        spectrum = self._back * (fitted - self._harmonic) + self._gain * right
        field = self.dipole * spectrum
        self._harmonic = (mu * (fitted - field) + muh * laplacian * split) / (mu + muh * laplacian * laplacian)
        self.chi = engine.inverse(spectrum, shape)
        data(engine.inverse(field + self._harmonic, shape), self._target)
        value = engine.inverse(laplacian * self._harmonic, shape) + self._dual
        self._dual = engine.xp.where(self._mask, (1 - float(self._keep)) * value, 0 * value)
        self._split = value - 2 * self._dual
        self.prior.step(self.chi, self.threshold, self._right)
        return float(engine.change(self.chi, old))


@kernel
def _solve_rows(start, stop, right, fitted, split, harmonic, gain, back, dipole, laplacian, mu, muh):
    """Spectra of the map, of its field and the harmonic one, and of the curvature of that, from those of the splits."""
    for i in range(right.shape[0]):
        for j in range(start, stop):
            for k in range(right.shape[2]):
                a, b, d, bend = gain[i, j, k], back[i, j, k], dipole[i, j, k], laplacian[i, j, k]
                r, f, s, h = right[i, j, k], fitted[i, j, k], split[i, j, k], harmonic[i, j, k]
                real, imag = b * (f.real - h.real) + a * r.real, b * (f.imag - h.imag) + a * r.imag
                right[i, j, k] = complex(real, imag)
                real, imag = d * real, d * imag
                by_data, by_split = np.float32(1) / (mu + muh * bend * bend), muh * bend
                x = (mu * (f.real - real) + by_split * s.real) * by_data
                y = (mu * (f.imag - imag) + by_split * s.imag) * by_data
                harmonic[i, j, k] = complex(x, y)
                fitted[i, j, k] = complex(real + x, imag + y)
                split[i, j, k] = complex(bend * x, bend * y)


@kernel
def _bend(planes, mask, keep, dual):
    """The split of the curvature, which is free outside the mask; planes of it become the split less its dual."""
    for i in range(planes.shape[0]):
        for j in range(planes.shape[1]):
            for k in range(planes.shape[2]):
                value = planes[i, j, k] + dual[i, j, k]
                u = value - keep * value if mask[i, j, k] else np.float32(0)
                dual[i, j, k] = u
                planes[i, j, k] = value - np.float32(2) * u


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
    cost=Cost(bytes_per_voxel=69, seconds_per_megavoxel=12),
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
    solver = _HarmonicSplitting(domain, prior, float(scale) / parameters.penalty, rho, parameters, engine)
    data = PhaseData(domain.field * scale, weights, parameters.data_penalty, engine=engine)
    solver.start(data)
    chi = solver.iterate(data, parameters.iterations, parameters.tolerance, progress)
    return engine.finish(domain, chi / float(scale))
