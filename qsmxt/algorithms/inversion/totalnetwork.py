r"""Inversion of the total field by a network of the user.

.. math:: \chi = N(f) \quad\text{or}\quad \chi = N(f, M)

with :math:`f` the total field (ppm, ``(x, y, z)``), :math:`M` the mask and :math:`N` a network in an ONNX file,
called as :mod:`qsmxt.algorithms.inversion.learned` says. QSMxT brings no weights and downloads none. What a network
makes of fields unlike those of its training (resolution, field strength, pathology, direction of B0) is not known:
compare with another method.

Needs the extra ``onnx`` (``pip install 'qsmxt[onnx]'``).

References
----------
Cognolato et al. 2023 (doi:10.1016/j.media.2022.102700).
"""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms.inversion.learned import NetworkParameters, apply_network
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method


@method(
    stage="inversion",
    key="totalnetwork",
    title="Network for the total field (ONNX)",
    consumes=("total_field", "mask"),
    produces=("chi",),
    parameters=NetworkParameters,
    references=("cognolato2023",),
    sentence="Susceptibility was computed from the total field by a neural network ({weights}).",
    cost=Cost(bytes_per_voxel=2000, seconds_per_megavoxel=60),
    status="experimental",
    extra="onnx",
)
def totalnetwork(
    total_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: NetworkParameters = NetworkParameters(),
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """Susceptibility (ppm) that the network of a user makes of the total field (ppm); see the module."""
    chi = apply_network("total_field", total_field, mask, grid, parameters)
    if progress:
        progress(1.0)
    return chi
