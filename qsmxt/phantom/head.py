r"""A digital head with known susceptibility: multi-echo gradient echo with everything that makes it hard.

Signal of echo :math:`e` at a point of a fine grid,

.. math::

    S_e = M_0\,\beta\,e^{-R_2^* T_e}\, \exp i\,[\varphi_0 + 2\pi\bar\gamma B_0\,(f - f_{shim})\,T_e],
    \qquad f = d * (\chi - \chi_{air}),

with the Green's dipole :math:`d`, tissue properties per class with a smooth random texture, coil phase
:math:`\varphi_0`, coil sensitivity :math:`\beta` and a second-order shim :math:`f_{shim}`. The complex signal is
averaged over the samples of each voxel, which makes dephasing and partial volume; complex Gaussian noise of one
standard deviation for all echoes is added last.

What is true
    ``chi``, ``total_field``, ``local_field``, ``r2star`` are means over the samples of a voxel. ``total_field`` is
    :math:`f - f_{shim}`, without the phase offset. ``local_field`` is :math:`d * (\chi\,m)` with the brain mask
    :math:`m` of the voxel grid. The shim is harmonic, so total and local field differ by a harmonic function inside
    the mask. The field that a voxel's *phase* shows is weighted with the signal, not the plain mean: where the field
    is steep inside a voxel the two differ.

Voxel axes are the axes of the head; ``tilt`` turns the head about its left-right axis in the scanner, so the affine
becomes oblique and B0 is :math:`(0, -\sin, \cos)` in voxel axes.

In the brain of the default head (1.5 mm) the total field has a standard deviation of 0.207 ppm (-2.7 to +4.5), the
local field 0.0095 and the susceptibility 0.0313 ppm. A millimetre of bone separates the air of the sinuses from the
brain; with air right beside the brain the total field would have 0.23 ppm.

References: Marques 2021 (doi:10.1002/mrm.28716), Salomir 2003 (doi:10.1002/cmr.b.10083).
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.phantom import acquisition
from qsmxt.phantom.anatomy import INDEX, LABELS, TISSUES, Coordinates, paint
from qsmxt.phantom.deformation import AMPLITUDE, Deformation
from qsmxt.phantom.forward import DipoleField
from qsmxt.phantom.voxels import block_mean, brain_mask, dominant_tissue, repeat

__all__ = ["LABELS", "Head", "HeadSettings", "simulate"]

#: Length by which the neck is continued below the field of view, mm.
NECK_LENGTH = 60.0


@dataclass(frozen=True)
class HeadSettings:
    """What to simulate.

    Attributes
    ----------
    voxel_size, field_of_view
        mm. The number of voxels is their ratio, rounded.
    field_strength
        T.
    echo_times
        s.
    snr
        Mean first-echo magnitude of white matter over the noise of one channel; ``inf`` for no noise.
    tilt
        Rotation of the head about its left-right axis, rad.
    seed
        Of veins, texture and noise.
    phase_offset, shim
        Whether there is a coil phase, and a second-order shim.
    oversampling
        Samples per voxel along the shortest side of a voxel; the other sides get as many as make the samples isotropic.
    bipolar
        Adds the phase of alternating readouts, 0.5 rad times x in [-1, 1], to every second echo.
    conjugate
        GE-like phase: opposite sign, and pi added in every second slice.
    r2star_factor
        Relaxation relative to 3 T; ``None``: 1 + (field strength - 3 T) / 4 T, which is 2 at 7 T.
    haemorrhage
        Adds a haemorrhage of this susceptibility, ppm; 0 for none.
    slab
        Keep only the voxels with z between these two, mm, of the head frame.
    deformation
        Seed of a smooth deformation of the anatomy (another subject); ``None`` for none.
    deformation_amplitude
        Its root-mean-square displacement along each axis, mm.
    chi_change
        Pairs of the name of a tissue and what is added to its susceptibility, ppm.
    repetition
        Number of the scan: scans of one seed differ in noise only.
    """

    voxel_size: tuple[float, float, float] = (1.5, 1.5, 1.5)
    field_strength: float = 3.0
    echo_times: tuple[float, ...] = (0.005, 0.011, 0.017, 0.023)
    snr: float = 60.0
    tilt: float = 0.0
    seed: int = 0
    field_of_view: tuple[float, float, float] = (192.0, 228.0, 192.0)
    phase_offset: bool = True
    shim: bool = True
    oversampling: int = 2
    bipolar: bool = False
    conjugate: bool = False
    r2star_factor: float | None = None
    haemorrhage: float = 0.0
    slab: tuple[float, float] | None = None
    deformation: int | None = None
    deformation_amplitude: float = AMPLITUDE
    chi_change: tuple[tuple[str, float], ...] = ()
    repetition: int = 1

    def __post_init__(self) -> None:
        if not self.echo_times or min(self.echo_times) <= 0:
            raise InputError(f"echo_times: expected at least one positive time in s, found {self.echo_times}")
        if min(*self.voxel_size, *self.field_of_view, self.oversampling, self.repetition) <= 0:
            raise InputError("voxel_size, field_of_view, oversampling, repetition: expected positive numbers")
        unknown = [name for name, _ in self.chi_change if name not in INDEX]
        if unknown:
            raise InputError(f"chi_change: expected names among {', '.join(INDEX)}, found {unknown[0]!r}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels, before the slab is cut out."""
        x, y, z = (max(1, round(f / v)) for f, v in zip(self.field_of_view, self.voxel_size, strict=True))
        return x, y, z

    @property
    def factors(self) -> tuple[int, int, int]:
        """Samples per voxel along each axis."""
        side = min(self.voxel_size)
        x, y, z = (max(1, round(self.oversampling * v / side)) for v in self.voxel_size)
        return x, y, z

    @property
    def subject(self) -> Deformation | None:
        """Map from space (axes of the volume, origin at its middle) to the head frame; ``None`` for the identity."""
        return None if self.deformation is None else Deformation.random(self.deformation, self.deformation_amplitude)

    @property
    def streams(self) -> list[np.random.Generator]:
        """Random numbers for veins, texture and noise."""
        veins, texture, *noise = np.random.SeedSequence(self.seed).spawn(2 + self.repetition)
        return [np.random.default_rng(s) for s in (veins, texture, noise[-1])]

    @property
    def fine_shape(self) -> tuple[int, int, int]:
        """Number of samples of the fine grid."""
        (nx, ny, nz), (fx, fy, fz) = self.shape, self.factors
        return nx * fx, ny * fy, nz * fz

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of the samples of the fine grid, mm."""
        (vx, vy, vz), (fx, fy, fz) = self.voxel_size, self.factors
        return vx / fx, vy / fy, vz / fz

    @property
    def affine(self) -> np.ndarray:
        """Voxel to RAS, mm: the middle of the field of view is the origin, the axes are turned by ``tilt`` about x."""
        cosine, sine = math.cos(self.tilt), math.sin(self.tilt)
        rotation = np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]])
        affine = np.eye(4)
        affine[:3, :3] = rotation * np.array(self.voxel_size)
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(self.shape) - 1) / 2)
        return affine + 0.0  # no negative zeros

    @property
    def relaxation(self) -> float:
        """Factor of R2* relative to 3 T."""
        return 1 + (self.field_strength - 3) / 4 if self.r2star_factor is None else self.r2star_factor


@dataclass
class Head:
    """A simulated acquisition and its truth; see the module docstring.

    Volumes are float32 ``(x, y, z)`` unless said otherwise.

    Attributes
    ----------
    grid, affine
        Sampling and voxel-to-RAS matrix (mm).
    echo_times, field_strength
        s and T.
    wrapped_phase, magnitude
        ``(echo, x, y, z)``, rad in [-pi, pi) and arbitrary unit.
    chi, total_field, local_field
        Truth, ppm.
    r2star
        Truth, 1/s.
    brain, head
        Bool: voxels that are at least 90 % brain (largest component, holes filled); at least half not air.
    labels
        Dominant tissue, uint8, names in :data:`~qsmxt.phantom.anatomy.LABELS`.
    t1w
        A T1-weighted volume of the same anatomy, white matter about 1000.
    phase_offset
        Coil phase at echo time zero, rad, at the centre of the voxels.
    noise
        Standard deviation of the real and of the imaginary part, in units of ``magnitude``.
    """

    grid: Grid
    affine: np.ndarray
    echo_times: tuple[float, ...]
    field_strength: float
    wrapped_phase: np.ndarray
    magnitude: np.ndarray
    chi: np.ndarray
    total_field: np.ndarray
    local_field: np.ndarray
    r2star: np.ndarray
    brain: np.ndarray
    labels: np.ndarray
    t1w: np.ndarray
    head: np.ndarray
    phase_offset: np.ndarray
    noise: float

    def save(self, path: str | Path) -> None:
        """Write all arrays to an uncompressed ``.npz``; the grid becomes ``voxel_size`` and ``b0_direction``."""
        arrays = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "grid"}
        arrays |= {"voxel_size": self.grid.voxel_size, "b0_direction": self.grid.b0_direction}
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.npz")
        np.savez(unfinished, **{name: np.asarray(value) for name, value in arrays.items()})  # type: ignore[arg-type]
        unfinished.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Head:
        """Read what :meth:`save` wrote."""
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        arrays.pop("voxel_size"), arrays.pop("b0_direction")
        arrays["echo_times"] = tuple(float(t) for t in arrays["echo_times"])
        arrays |= {name: float(arrays[name]) for name in ("field_strength", "noise")}
        return cls(grid=Grid.from_affine(arrays["affine"], arrays["chi"].shape), **arrays)


def simulate(settings: HeadSettings = HeadSettings()) -> Head:
    """Simulate the head.

    The same settings give the same bytes. Needs about 150 bytes per sample of the fine grid.

    Examples
    --------
    >>> head = simulate(HeadSettings(voxel_size=(8, 8, 8), oversampling=1, echo_times=(0.02,)))
    >>> head.wrapped_phase.shape, bool(head.chi[head.labels == 2].mean() > head.chi[head.labels == 8].mean())
    ((1, 24, 28, 24), True)
    """
    streams, factors = settings.streams, settings.factors
    fine, spacing = settings.fine_shape, settings.spacing
    coordinates = Coordinates(fine, spacing, settings.subject)
    classes, inside = paint(coordinates, streams[0], haemorrhage=settings.haemorrhage != 0)
    del coordinates
    tissue = acquisition.properties(classes, acquisition.texture(fine, spacing, streams[1]), settings)
    brain = brain_mask(block_mean(inside, factors))
    labels, not_air = dominant_tissue(classes, factors)
    del inside, classes
    grid = Grid.from_affine(settings.affine, settings.shape)
    total, local = _fields(tissue["chi"], brain, grid, settings)
    if settings.shim:
        acquisition.shim(total, block_mean(total, factors), brain, settings)
    signal = acquisition.signal(tissue, total, settings)
    white = brain & (labels == INDEX["white-matter"])
    noise = float(np.abs(signal[0][white]).mean(dtype=np.float64) / settings.snr)
    magnitude, wrapped_phase = acquisition.receive(signal, noise, settings, streams[2])
    head = Head(
        grid=grid,
        affine=settings.affine,
        echo_times=tuple(settings.echo_times),
        field_strength=settings.field_strength,
        wrapped_phase=wrapped_phase,
        magnitude=magnitude,
        chi=block_mean(tissue["chi"], factors),
        total_field=block_mean(total, factors),
        local_field=block_mean(local, factors),
        r2star=block_mean(tissue["r2star"], factors),
        brain=brain,
        labels=labels,
        t1w=acquisition.t1_weighted(block_mean(tissue["t1w"], factors), streams[2]),
        head=not_air >= 0.5,
        phase_offset=acquisition.phase_offset(acquisition.normalised(settings.shape), settings.phase_offset),
        noise=noise,
    )
    return _cut(head, settings.slab) if settings.slab else head


def _fields(chi: np.ndarray, brain: np.ndarray, grid: Grid, settings: HeadSettings) -> tuple[np.ndarray, np.ndarray]:
    """Total and local field on the fine grid, ppm."""
    convolve = DipoleField(settings.fine_shape, settings.spacing, grid.b0_direction, below=NECK_LENGTH)
    total = convolve(chi - np.float32(TISSUES[0].chi))
    convolve.below = 0  # the brain does not go on below the field of view
    return total, convolve(chi * repeat(brain, settings.factors))


def _cut(head: Head, slab: tuple[float, float]) -> Head:
    """The voxels with z (head frame) inside ``slab``."""
    n = head.grid.shape[2]
    z = (np.arange(n) - (n - 1) / 2) * head.grid.voxel_size[2]
    kept = np.flatnonzero((z >= slab[0]) & (z <= slab[1]))
    if kept.size == 0:
        raise InputError(f"slab: expected two heights in mm with voxels between them, found {slab}")
    part = slice(int(kept[0]), int(kept[-1]) + 1)
    affine = head.affine.copy()
    affine[:3, 3] += affine[:3, 2] * part.start
    changes: dict[str, object] = {"affine": affine}
    for field in dataclasses.fields(head):
        value = getattr(head, field.name)
        if isinstance(value, np.ndarray) and value.ndim >= 3:
            changes[field.name] = np.ascontiguousarray(value[..., part])
    changes["grid"] = Grid.from_affine(affine, head.chi[..., part].shape)
    return dataclasses.replace(head, **changes)  # type: ignore[arg-type]


def main(arguments: list[str] | None = None) -> None:
    """Write a simulated head to an ``.npz`` file."""
    default = HeadSettings()
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--voxel-size", type=float, nargs="+", default=default.voxel_size, help="mm, one or three")
    parser.add_argument("--field-of-view", type=float, nargs=3, default=default.field_of_view, help="mm")
    parser.add_argument("--field-strength", type=float, default=default.field_strength, help="T")
    parser.add_argument("--echo-times", type=float, nargs="+", default=default.echo_times, help="s")
    parser.add_argument("--snr", type=float, default=default.snr)
    parser.add_argument("--tilt", type=float, default=0.0, help="degrees")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--oversampling", type=int, default=default.oversampling)
    parser.add_argument("--deformation", type=int, default=None)
    parser.add_argument("--haemorrhage", type=float, default=0.0, help="ppm")
    parser.add_argument("--slab", type=float, nargs=2, default=None, help="mm")
    for flag in ("bipolar", "conjugate", "no-shim", "no-phase-offset"):
        parser.add_argument(f"--{flag}", action="store_true")
    given = vars(parser.parse_args(arguments))
    output = given.pop("output")
    size = tuple(given["voxel_size"])
    given["voxel_size"] = size * 3 if len(size) == 1 else size
    given["tilt"] = math.radians(given["tilt"])
    given["shim"], given["phase_offset"] = not given.pop("no_shim"), not given.pop("no_phase_offset")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    simulate(HeadSettings(**given)).save(output)


if __name__ == "__main__":
    main()
