"""Every array that passes between methods: its name, unit, shape and, when it is saved, its BIDS suffix.

A name means the same from the command line to the kernel. Arrays are C-ordered; an array with an echo axis
has it first, ``(echo, x, y, z)``. Masks are bool, everything else float32.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Artifact:
    """One named quantity.

    Attributes
    ----------
    name
        Name in code, configuration and command line.
    unit
        Unit of the values (``"1"`` if dimensionless).
    description
        What it is, in one phrase.
    kind
        ``"volume"`` (x, y, z), ``"echoes"`` (echo, x, y, z), ``"coils"`` (coil, echo, x, y, z),
        ``"spin_echoes"`` (echo, x, y, z) of another scan, ``"orientations"`` (orientation, x, y, z),
        ``"components"`` (component, x, y, z), ``"mask"`` (bool volume), ``"labels"`` (integer volume) or
        ``"acquisition"`` (numbers, not an image).
    suffix
        BIDS suffix of the saved map, or ``None`` if it is never saved under its own suffix.
    desc
        BIDS ``desc`` label that tells it from other maps of the same suffix.
    """

    name: str
    unit: str
    description: str
    kind: str = "volume"
    suffix: str | None = None
    desc: str | None = None


#: Kinds that are several volumes, their number first.
STACKED = ("echoes", "coils", "spin_echoes", "orientations", "components")


def _table(*rows: Artifact) -> dict[str, Artifact]:
    return {row.name: row for row in rows}


ARTIFACTS: dict[str, Artifact] = _table(
    # what the scanner gives
    Artifact("wrapped_phase", "rad", "measured phase in [-pi, pi], positive for paramagnetic fields", "echoes"),
    Artifact("magnitude", "arbitrary", "measured magnitude", "echoes"),
    Artifact("coil_phase", "rad", "phase of every uncombined coil, (coil, echo, x, y, z)", "coils"),
    Artifact("coil_magnitude", "arbitrary", "magnitude of every uncombined coil, (coil, echo, x, y, z)", "coils"),
    Artifact("echo_times", "s", "echo times, ascending", "acquisition"),
    Artifact("field_strength", "T", "strength of the main field", "acquisition"),
    Artifact(
        "combined_magnitude", "arbitrary", "root sum of squares over the echoes", suffix="T2starw", desc="combined"
    ),
    # phase to field
    Artifact("phase_offset", "rad", "phase at echo time zero"),
    Artifact("offset_free_phase", "rad", "wrapped phase after removal of the phase offset", "echoes"),
    Artifact("unwrapped_phase", "rad", "phase without wraps", "echoes"),
    Artifact("phase_quality", "1", "reliability of the phase from 0 to 1 (ROMEO voxel quality)"),
    Artifact("total_field", "ppm", "relative field of all sources", suffix="T2starw", desc="totalfield"),
    Artifact("field_noise", "ppm", "standard deviation of the total field", suffix="T2starw", desc="fieldnoise"),
    Artifact("fit_quality", "1", "agreement of the echoes with one frequency, from 0 to 1"),
    # masks
    Artifact("mask_input", "arbitrary", "image from which a mask is made: magnitude, quality map or T1-weighted"),
    Artifact("homogeneous_magnitude", "arbitrary", "magnitude freed from the inhomogeneity of the receive field"),
    Artifact("mask", "1", "region in which susceptibility is reported", "mask", suffix="mask", desc="brain"),
    Artifact("support_mask", "1", "region in which the field is inverted; holds the mask", "mask", "mask", "support"),
    Artifact("reliable_mask", "1", "part of the mask in which the phase can be trusted", "mask", "mask", "reliable"),
    # field to susceptibility
    Artifact(
        "local_field", "ppm", "relative field of the sources inside the mask", suffix="T2starw", desc="localfield"
    ),
    Artifact("eroded_mask", "1", "part of the mask in which the local field is defined", "mask"),
    Artifact("chi", "ppm", "magnetic susceptibility", suffix="Chimap"),
    Artifact("reference_offset", "ppm", "susceptibility that referencing subtracts", "acquisition"),
    Artifact("reliable_chi", "ppm", "susceptibility reconstructed from the reliable mask alone"),
    Artifact("filled_chi", "ppm", "susceptibility reconstructed from the mask without holes"),
    Artifact("echo_chi", "ppm", "susceptibility of every echo", "echoes"),
    Artifact("csf_mask", "1", "cerebrospinal fluid of the ventricles", "mask", suffix="mask", desc="csf"),
    Artifact("labels", "1", "anatomical labels", "labels", suffix="dseg"),
    # other contrasts
    Artifact("swi", "arbitrary", "susceptibility-weighted image", suffix="T2starw", desc="swi"),
    Artifact("minimum_intensity_projection", "arbitrary", "sliding minimum of the SWI", suffix="T2starw", desc="minIP"),
    Artifact("r2star", "1/s", "effective transverse relaxation rate", suffix="R2starmap"),
    Artifact("r2star_noise", "1/s", "standard deviation of R2*", suffix="R2starmap", desc="noise"),
    Artifact("t2star", "s", "effective transverse relaxation time", suffix="T2starmap"),
    Artifact("t2star_noise", "s", "standard deviation of T2*", suffix="T2starmap", desc="noise"),
    Artifact("s0", "arbitrary", "signal at echo time zero", suffix="S0map"),
    Artifact("spin_echo_magnitude", "arbitrary", "magnitude of a train of spin echoes", "spin_echoes"),
    Artifact("spin_echo_times", "s", "times of the spin echoes, ascending", "acquisition"),
    Artifact("r2", "1/s", "transverse relaxation rate of a spin echo", suffix="R2map"),
    Artifact("r2prime", "1/s", "reversible transverse relaxation rate, R2* - R2"),
    Artifact("chi_paramagnetic", "ppm", "susceptibility of paramagnetic sources", suffix="Chimap", desc="paramagnetic"),
    Artifact(
        "chi_diamagnetic", "ppm", "susceptibility of diamagnetic sources, <= 0", suffix="Chimap", desc="diamagnetic"
    ),
    Artifact(
        "closed_form_paramagnetic", "ppm", "paramagnetic susceptibility in closed form, to compare with",
        suffix="Chimap", desc="paramagneticClosedForm",
    ),
    Artifact(
        "closed_form_diamagnetic", "ppm", "diamagnetic susceptibility in closed form, to compare with",
        suffix="Chimap", desc="diamagneticClosedForm",
    ),
    # several orientations of one head
    Artifact("oriented_fields", "ppm", "local field of every orientation on one grid", "orientations"),
    Artifact("oriented_noise", "ppm", "standard deviation of the field of every orientation", "orientations"),
    Artifact("b0_directions", "1", "B0 of every orientation in the axes of the grid", "acquisition"),
    Artifact(
        "orientation_chi", "ppm", "susceptibility from several orientations", suffix="Chimap", desc="orientations"
    ),
    Artifact("susceptibility_tensor", "ppm", "susceptibility tensor: xx, xy, xz, yy, yz, zz", "components"),
    Artifact(
        "tensor_mean", "ppm", "mean susceptibility, a third of the trace of the tensor",
        suffix="Chimap", desc="tensormean",
    ),
    Artifact(
        "tensor_anisotropy", "ppm", "largest susceptibility of the tensor less the mean of the other two",
        suffix="Chimap", desc="tensoranisotropy",
    ),
)  # fmt: skip


def artifact(name: str) -> Artifact:
    """The artifact called ``name``; ``KeyError`` if there is none."""
    return ARTIFACTS[name]
