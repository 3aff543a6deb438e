r"""From sections to masks: run them, combine them, find where the phase is reliable, and judge the result.

Four masks matter for susceptibility mapping:

mask
    the brain or object, holes filled: where susceptibility is reported.

support
    where the field is inverted. It is the mask, unless a section says ``support``: then it may hold a rim besides, such
    as the fluid around the brain, where the field is as good as inside. A map is worst at the rim of its support.
reliable mask
    the part of it in which the phase can be trusted: with the phase quality Q and the fit quality q

    .. math:: R = \mathrm{largest}\,\mathrm{open}\,(M \cap \{Q > t_{Otsu}\} \cap \{q > 0.9\}) ,

    see :mod:`qsmxt.algorithms.masking.quality`.

parts
    the mask of every section, for reports and for the agreement between them.

A mask that was made elsewhere and is given as ``mask:NAME`` is never changed by this module, except by refinements
that its section spells out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qsmxt.algorithms.masking.homogeneity import homogeneity
from qsmxt.algorithms.masking.plausibility import agreement, judge
from qsmxt.algorithms.masking.quality import reliable
from qsmxt.algorithms.masking.robust import robust
from qsmxt.algorithms.signal import combine_magnitude
from qsmxt.errors import InputError, MissingInputError, ParameterError
from qsmxt.geometry import Grid
from qsmxt.registry.mask_sections import Section, Step, parse_section
from qsmxt.registry.methods import Progress

#: How sections are combined.
COMBINATIONS = ("and", "or")

#: Inputs that are an array of ``arrays`` as it is.
_VOLUMES = {"phase-quality": "phase_quality", "fit-quality": "fit_quality", "field-noise": "field_noise", "t1w": "t1w"}


@dataclass
class MaskResult:
    """What :func:`build_mask` returns.

    Attributes
    ----------
    mask, reliable_mask
        Bool ``(x, y, z)``; the second lies within the first.
    support_mask, reliable_support_mask
        Where the field is inverted, and where it is reliable; they hold the other two and are equal to them where no
        section says ``support``.
    parts
        Mask of every section by its text.
    statistics
        ``volume_ml``, ``reliable_volume_ml``, ``euler_number``, ``components``, ``touches_border``, ``agreement`` (Dice
        between every pair of sections), ``warnings`` (sentences).
    """

    mask: np.ndarray
    reliable_mask: np.ndarray
    support_mask: np.ndarray
    reliable_support_mask: np.ndarray
    parts: dict[str, np.ndarray] = field(default_factory=dict)
    statistics: dict[str, Any] = field(default_factory=dict)


def build_mask(
    sections: list[Any] | tuple[Any, ...],
    arrays: Mapping[str, Any],
    grid: Grid,
    *,
    combine: str = "and",
    human_brain: bool = True,
    progress: Progress | None = None,
) -> MaskResult:
    """Masks from sections.

    Parameters
    ----------
    sections
        Texts of the grammar or parsed :class:`~qsmxt.registry.mask_sections.Section`.
    arrays
        By name, as far as there are and the sections need them: ``magnitude`` and ``wrapped_phase`` (echo, x, y, z),
        ``phase_quality``, ``fit_quality``, ``field_noise``, ``t1w`` (resampled to the grid), and ``external_masks``,
        itself a mapping of names to masks; ``n4`` is a function of image, mask and grid that corrects inhomogeneity.
    grid
        Geometry.
    combine
        ``"and"``: voxels of all sections; ``"or"``: of any.
    human_brain
        Whether a human brain is expected: implausible masks give warnings, and an empty one is replaced by the signal.
    progress
        Called with the share that is done.

    Raises
    ------
    ParameterError
        If a section is wrong.
    MissingInputError
        If a section needs an array that is not there.
    InputError
        If the mask is empty.
    """
    if combine not in COMBINATIONS:
        raise ParameterError(f"combine: expected one of {', '.join(COMBINATIONS)}, found {combine!r}")
    parsed = [s if isinstance(s, Section) else parse_section(s) for s in sections]
    if not parsed:
        raise ParameterError("mask: expected at least one section such as 'magnitude,bet', found none")
    warnings: list[str] = []
    parts, supports = {}, []
    for number, section in enumerate(parsed):
        parts[section.text], support = run_section(section, arrays, grid)
        supports.append(support)
        if progress:
            progress(0.8 * (number + 1) / len(parsed))
    join = np.logical_and if combine == "and" else np.logical_or
    mask, support = (np.ascontiguousarray(join.reduce(masks)) for masks in (list(parts.values()), supports))
    if not mask.any():
        mask = support = _instead_of_nothing(arrays, grid, human_brain, warnings)
    wide = _reliable(support, arrays, grid, warnings)
    trusted = wide & mask
    statistics = judge(mask, grid, human_brain=human_brain)
    statistics["reliable_volume_ml"] = float(trusted.sum() * grid.voxel_volume / 1000)
    statistics["agreement"] = agreement(parts)
    statistics["warnings"] = [*warnings, *statistics["warnings"]]
    if progress:
        progress(1.0)
    return MaskResult(mask, trusted, support, wide, parts, statistics)


def run_section(section: Section, arrays: Mapping[str, Any], grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The mask of one section and the support, which holds it, bool ``(x, y, z)``."""
    if section.external_mask is not None:
        mask = _external(section.external_mask, arrays, grid)
        image = None
    else:
        assert section.generator is not None
        images = _inputs(section, arrays, grid)
        masks = [_run(section.generator, arrays, grid, image=image) for image in images]
        mask = np.logical_and.reduce(masks)
        image = images[0]
    support = None
    for number, step in enumerate(section.refinements):
        if number == section.support:
            support = mask
        mask = _run(step, arrays, grid, image=image, mask=mask)
    return (mask, mask) if support is None else (mask & support, support)


def _run(
    step: Step, arrays: Mapping[str, Any], grid: Grid, *, image: np.ndarray | None, mask: np.ndarray | None = None
) -> np.ndarray:
    assert step.method is not None
    available = {name: array for name, array in arrays.items() if array is not None}
    if image is not None:
        available["wrapped_phase" if "wrapped_phase" in step.method.consumes else "mask_input"] = image
    if mask is not None:
        available["mask"] = mask
    for name in step.method.consumes:
        if name not in available:
            raise MissingInputError(
                f"mask step {step.key}: needs {name.replace('_', ' ')}, which this acquisition does not have; "
                "choose another step"
            )
    return step.method.run(available, grid, step.parameters)["mask"]


def _external(name: str, arrays: Mapping[str, Any], grid: Grid) -> np.ndarray:
    known = arrays.get("external_masks") or {}
    if name not in known:
        raise MissingInputError(
            f"mask {name!r}: expected a mask of that name, found {', '.join(known) or 'none'}; "
            "give the derivatives that contain it or choose another mask"
        )
    mask = np.asarray(known[name]) > 0
    grid.check(f"mask {name!r}", mask)
    return mask


def _inputs(section: Section, arrays: Mapping[str, Any], grid: Grid) -> list[np.ndarray]:
    """Images that the generator of a section sees; several only if every echo is asked for."""
    source = section.source
    name = {"magnitude": "magnitude", "phase": "wrapped_phase"}.get(source) or _VOLUMES[source]
    array = arrays.get(name)
    if array is None:
        raise MissingInputError(
            f"mask section {section.text!r}: needs {name.replace('_', ' ')}, which this acquisition does not have; "
            "choose another input"
        )
    array = np.asarray(array)
    if source in ("magnitude", "phase"):
        images = _echoes(section, array if array.ndim == 4 else array[None])
    else:
        images = [array]
    for image in images:
        grid.check(name, image)
    if section.n4:
        correct = arrays.get("n4")
        if correct is None:
            raise MissingInputError(f"mask section {section.text!r}: needs N4, which is not at hand; use corrected")
        images = [correct(image, robust(image, grid), grid) for image in images]
    return [homogeneity(image, grid) for image in images] if section.corrected else images


def _echoes(section: Section, array: np.ndarray) -> list[np.ndarray]:
    if section.echoes == "rss":
        return [combine_magnitude(array)]
    if section.echoes == "each":
        return list(array)
    if section.echoes in ("first", "last"):
        return [array[0 if section.echoes == "first" else -1]]
    number = int(section.echoes)
    if number > len(array):
        raise ParameterError(f"mask section {section.text!r}: expected an echo from 1 to {len(array)}, found {number}")
    return [array[number - 1]]


def _instead_of_nothing(arrays: Mapping[str, Any], grid: Grid, human_brain: bool, warnings: list[str]) -> np.ndarray:
    """The voxels with signal, if a brain was expected and not found."""
    magnitude = arrays.get("magnitude")
    if human_brain and magnitude is not None:
        mask = robust(combine_magnitude(np.asarray(magnitude)), grid)
        if mask.any():
            warnings.append("No brain was found; all voxels with signal are used. Check the mask or give one.")
            return mask
    raise InputError("mask: expected at least one voxel, found an empty mask; choose other sections or give a mask")


def _reliable(mask: np.ndarray, arrays: Mapping[str, Any], grid: Grid, warnings: list[str]) -> np.ndarray:
    phase_quality = arrays.get("phase_quality")
    if phase_quality is None:
        return mask.copy()
    part = reliable(mask, phase_quality, arrays.get("fit_quality"), grid)
    if not part.any():
        warnings.append("The phase is nowhere reliable inside the mask; the whole mask is used.")
        return mask.copy()
    return part
