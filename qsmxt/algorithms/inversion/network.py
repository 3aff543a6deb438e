r"""Inversion of the local field by a network of the user.

.. math:: \chi = N(f_l) \quad\text{or}\quad \chi = N(f_l, M)

with :math:`f_l` the local field (ppm, ``(x, y, z)``), :math:`M` the mask and :math:`N` a network in an ONNX file,
called as :mod:`qsmxt.algorithms.inversion.learned` says. QSMxT brings no weights and downloads none. What a network
makes of fields unlike those of its training (resolution, field strength, pathology, direction of B0) is not known:
compare with another method.

Needs the extra ``onnx`` (``pip install 'qsmxt[onnx]'``).

References
----------
Yoon et al. 2018 (doi:10.1016/j.neuroimage.2018.06.030).
"""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms.inversion.learned import NetworkParameters, apply_network
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method


@method(
    stage="inversion",
    key="network",
    title="Network for the local field (ONNX)",
    consumes=("local_field", "mask"),
    produces=("chi",),
    parameters=NetworkParameters,
    references=("yoon2018",),
    sentence="Susceptibility was computed from the local field by a neural network ({weights}).",
    cost=Cost(bytes_per_voxel=2000, seconds_per_megavoxel=60),
    status="experimental",
    extra="onnx",
)
def network(
    local_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: NetworkParameters = NetworkParameters(),
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """Susceptibility (ppm) that the network of a user makes of the local field (ppm); see the module."""
    chi = apply_network("local_field", local_field, mask, grid, parameters)
    if progress:
        progress(1.0)
    return chi
