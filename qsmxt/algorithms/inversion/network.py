r"""Inversion of the local field by a network of the user.

.. math:: \chi = b\,N(a f_l) \quad\text{or}\quad \chi = b\,N(a f_l, M)

with :math:`f_l` the local field (ppm, ``(x, y, z)``), :math:`M` the mask and :math:`N` a network in an ONNX file,
called as :mod:`qsmxt.algorithms.inversion.learned` says. QSMxT brings no weights and downloads none. What a network
makes of fields unlike those of its training (resolution, field strength, pathology, direction of B0) is not known:
compare with another method.

Needs the extra ``onnx`` (``pip install 'qsmxt[onnx]'``).

Parameters
    ``weights``: the file of N. ``input_scale``, ``output_scale``: a and b. ``multiple``: sides of the box, as the
    network needs them. ``threads``: of the network; the last digits may depend on it.

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
    """Susceptibility (ppm) that the network of a user makes of the local field (ppm); see the module.

    Parameters
    ----------
    local_field
        Relative field of the sources in the mask, ppm, float32 ``(x, y, z)``; outside the mask it does not matter.
    mask
        Region in which susceptibility is sought, bool ``(x, y, z)``.
    grid
        Shape, voxel size (mm) and direction of B0, which has to lie within 15 degrees of an axis.
    parameters
        See :class:`~qsmxt.algorithms.inversion.learned.NetworkParameters`; ``weights`` must be given.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Susceptibility, ppm, float32 ``(x, y, z)``; zero outside the mask.

    Raises
    ------
    ParameterError
        If no ``weights`` are given.
    MissingInputError
        If there is no such file.
    MissingProgramError
        If onnxruntime is not installed.
    InputError
        If the file is no network of the described form, what it makes is not finite or of another size, B0 is too
        oblique, a shape is not that of the grid, the mask is empty or not of 0 and 1, or the local field is complex or
        has NaN or Inf in the mask.

    Examples
    --------
    A network of one node, which gives back what it gets:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from onnx import TensorProto, helper, save
    >>> from qsmxt.algorithms.inversion.learned import NetworkParameters
    >>> from qsmxt.algorithms.inversion.network import network
    >>> from qsmxt.phantom.example import phantom
    >>> shape = (1, 1, None, None, None)
    >>> field, chi = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("field", "chi"))
    >>> graph = helper.make_graph([helper.make_node("Identity", ["field"], ["chi"])], "network", [field], [chi])
    >>> model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    >>> head = phantom()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     weights = Path(folder, "network.onnx")
    ...     save(model, weights)
    ...     made = network(head.local_field, head.mask, head.grid, NetworkParameters(str(weights), output_scale=2))
    >>> bool((made == 2 * head.local_field * head.mask).all())
    True
    """
    chi = apply_network("local_field", local_field, mask, grid, parameters)
    if progress:
        progress(1.0)
    return chi
