r"""A digital head with known susceptibility: multi-echo gradient echo with everything that makes it hard.

Signal of echo :math:`e` at a point of a fine grid,

.. math::

    S_e = M_0\,\beta\,e^{-R_2^* T_e}\, \exp i\,[\varphi_0 + 2\pi\bar\gamma B_0\,(f - f_{shim})\,T_e],
    \qquad f = d * (\chi - \chi_{air}),

with the Green's dipole :math:`d`, tissue properties per class with a smooth random texture, coil phase
:math:`\varphi_0`, coil sensitivity :math:`\beta` and a second-order shim :math:`f_{shim}`. The complex signal is averaged
over the samples of each voxel, which makes dephasing and partial volume; complex Gaussian noise of one standard deviation
for all echoes is added last.

What is true
    ``chi``, ``total_field``, ``local_field``, ``r2star`` are means over the samples of a voxel. ``total_field`` is
    :math:`f - f_{shim}`, without the phase offset. ``local_field`` is :math:`d * (\chi\,m)` with the brain mask :math:`m`
    of the voxel grid. The shim is harmonic, so total and local field differ by a harmonic function inside the mask.
    The field that a voxel's *phase* shows is weighted with the signal, not the plain mean: where the field is steep
    inside a voxel the two differ.

Voxel axes are the axes of the head; ``tilt`` turns the head about its left-right axis in the scanner, so the affine
becomes oblique and B0 is :math:`(0, -\sin, \cos)` in voxel axes.

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
from scipy import ndimage

from qsmxt.constants import rad_per_ppm
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.phantom.anatomy import INDEX, LABELS, PARENCHYMA, TISSUES, Coordinates, Deformation, paint
from qsmxt.phantom.forward import DipoleField

__all__ = ["LABELS", "Head", "HeadSettings", "simulate"]

#: Length by which the neck is continued below the field of view, mm.
NECK_LENGTH = 60.0
#: Smoothing of the texture, mm.
TEXTURE_WIDTH = 2.0


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

    def __post_init__(self) -> None:
        if not self.echo_times or min(self.echo_times) <= 0:
            raise InputError(f"echo_times: expected at least one positive time in s, found {self.echo_times}")
        if min(self.voxel_size) <= 0 or min(self.field_of_view) <= 0 or self.oversampling < 1:
            raise InputError("voxel_size, field_of_view, oversampling: expected positive numbers")

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
    def affine(self) -> np.ndarray:
        """Voxel to RAS, mm: the middle of the field of view is the origin, the axes are turned by ``tilt`` about x."""
        cosine, sine = math.cos(self.tilt), math.sin(self.tilt)
        rotation = np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]])
        affine = np.eye(4)
        affine[:3, :3] = rotation * np.array(self.voxel_size)
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(self.shape) - 1) / 2)
        return affine

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
        np.savez(unfinished, **{name: np.asarray(value) for name, value in arrays.items()})
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
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(settings.seed).spawn(3)]
    shape, factors = settings.shape, settings.factors
    fine = tuple(n * f for n, f in zip(shape, factors, strict=True))
    spacing = tuple(v / f for v, f in zip(settings.voxel_size, factors, strict=True))
    deformation = None if settings.deformation is None else Deformation.random(settings.deformation)
    coordinates = Coordinates(fine, spacing, deformation)  # type: ignore[arg-type]
    classes, inside = paint(coordinates, streams[0], haemorrhage=settings.haemorrhage != 0)
    del coordinates
    tissue = _tissue(classes, _texture(fine, spacing, streams[1]), settings)  # type: ignore[arg-type]
    brain = _brain_mask(block_mean(inside, factors))
    labels, not_air = _dominant(classes, factors)
    del inside, classes
    grid = Grid.from_affine(settings.affine, shape)
    total, local = _fields(tissue["chi"], brain, grid, factors, spacing)  # type: ignore[arg-type]
    if settings.shim:
        _shim(total, block_mean(total, factors), brain, settings)
    signal = _signal(tissue, total, settings)
    head = Head(
        grid=grid,
        affine=settings.affine,
        echo_times=tuple(settings.echo_times),
        field_strength=settings.field_strength,
        wrapped_phase=np.empty(0),
        magnitude=np.empty(0),
        chi=block_mean(tissue["chi"], factors),
        total_field=block_mean(total, factors),
        local_field=block_mean(local, factors),
        r2star=block_mean(tissue["r2star"], factors),
        brain=brain,
        labels=labels,
        t1w=block_mean(tissue["t1w"], factors),
        head=not_air >= 0.5,
        phase_offset=_phase_offset(_normalised(shape), settings.phase_offset),
        noise=0.0,
    )
    _add_noise(head, signal, settings, streams[2])
    return _cut(head, settings.slab) if settings.slab else head


def block_mean(volume: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    """Mean over blocks of ``factors`` samples; complex stays complex, everything else becomes float32."""
    kind = np.complex64 if np.iscomplexobj(volume) else np.float32
    out = volume
    for axis in (2, 1, 0):
        count = factors[axis]
        parts = [
            out[tuple(slice(i, None, count) if a == axis else slice(None) for a in range(3))] for i in range(count)
        ]
        summed = parts[0].astype(kind)
        for part in parts[1:]:
            summed += part
        out = summed
    out *= np.float32(1 / math.prod(factors))
    return out


def _texture(shape: tuple[int, int, int], spacing: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(shape, dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, [TEXTURE_WIDTH / h for h in spacing], mode="wrap", truncate=3.0)
    smooth /= smooth.std(dtype=np.float64)
    return smooth


def _tissue(classes: np.ndarray, texture: np.ndarray, settings: HeadSettings) -> dict[str, np.ndarray]:
    """Susceptibility, relaxation rate, density and T1-weighted signal on the fine grid."""
    chi = np.array([t.chi for t in TISSUES], dtype=np.float32)
    if settings.haemorrhage:
        chi[INDEX["haemorrhage"]] = settings.haemorrhage
    rate = np.array([t.r2star for t in TISSUES], dtype=np.float32) * np.float32(settings.relaxation)
    density = np.array([t.density for t in TISSUES], dtype=np.float32)
    t1w = np.array([t.t1w * 1000 for t in TISSUES], dtype=np.float32)
    textured = np.isin(np.arange(len(TISSUES)), PARENCHYMA).astype(np.float32)
    slope = textured * (np.float32(0.006) + np.float32(0.08) * np.abs(chi))
    out = {
        "chi": chi[classes] + slope[classes] * texture,
        "r2star": rate[classes] + (np.float32(0.06) * textured * rate)[classes] * texture,
        "density": density[classes] + (np.float32(0.03) * textured * density)[classes] * texture,
        "t1w": t1w[classes] + (np.float32(0.02) * textured * t1w)[classes] * texture,
    }
    np.maximum(out["r2star"], 0, out=out["r2star"])
    return out


def _brain_mask(fraction: np.ndarray) -> np.ndarray:
    """Voxels of at least 90 % brain: largest component, holes filled."""
    parts, count = ndimage.label(fraction >= 0.9 - 1e-6)
    if count == 0:
        raise InputError("voxel_size, field_of_view: expected voxels that lie inside the brain, found none")
    largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return ndimage.binary_fill_holes(parts == largest)


def _dominant(classes: np.ndarray, factors: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Most frequent tissue of each voxel (the smaller index when two are equal) and the fraction that is not air."""
    best = block_mean(classes == 0, factors)
    labels, not_air = np.zeros(best.shape, dtype=np.uint8), 1 - best
    for tissue in TISSUES[1:]:
        fraction = block_mean(classes == tissue.index, factors)
        better = fraction > best
        labels[better] = tissue.index
        best[better] = fraction[better]
    return labels, not_air


def _fields(
    chi: np.ndarray,
    brain: np.ndarray,
    grid: Grid,
    factors: tuple[int, int, int],
    spacing: tuple[float, float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Total and local field on the fine grid, ppm."""
    convolve = DipoleField(chi.shape, spacing, grid.b0_direction, below=NECK_LENGTH)  # type: ignore[arg-type]
    total = convolve(chi - np.float32(TISSUES[0].chi))
    convolve.below = 0  # nothing of the brain lies in the lowest slice
    source = brain
    for axis, count in enumerate(factors):
        source = np.repeat(source, count, axis=axis)
    return total, convolve(chi * source)


def _normalised(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates of the samples, -1 to 1 between the faces of the field of view, shaped for broadcasting."""
    x, y, z = (((2 * np.arange(n) + 1) / n - 1).astype(np.float32) for n in shape)
    return x[:, None, None], y[None, :, None], z[None, None, :]


def _shim(fine: np.ndarray, coarse: np.ndarray, brain: np.ndarray, settings: HeadSettings) -> None:
    """Remove the least-squares fit (over the brain) of second-order harmonics from ``fine``, in place."""

    def harmonics(shape: tuple[int, int, int]) -> list[np.ndarray]:
        halves = [np.float32(f / 200) for f in settings.field_of_view]  # unit: 100 mm, the same along all axes
        x, y, z = (c * h for c, h in zip(_normalised(shape), halves, strict=True))
        return [np.ones((1, 1, 1), np.float32), x, y, z, x * y, y * z, x * z, x * x - y * y, 2 * z * z - x * x - y * y]

    design = np.stack([np.broadcast_to(h, brain.shape)[brain] for h in harmonics(brain.shape)], axis=1)
    weights = np.linalg.lstsq(design.astype(np.float64), coarse[brain].astype(np.float64), rcond=None)[0]
    for weight, harmonic in zip(weights, harmonics(fine.shape), strict=True):  # type: ignore[arg-type]
        fine -= np.float32(weight) * harmonic


def _phase_offset(xyz: tuple[np.ndarray, np.ndarray, np.ndarray], wanted: bool) -> np.ndarray:
    x, y, z = xyz
    if not wanted:
        return np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), dtype=np.float32)
    return (0.8 + 1.1 * x - 0.7 * y + 0.5 * z + 1.3 * x * y - 0.9 * z * z + 0.6 * x * x).astype(np.float32)


def _signal(tissue: dict[str, np.ndarray], field: np.ndarray, settings: HeadSettings) -> np.ndarray:
    """Noise-free complex signal ``(echo, x, y, z)`` of the voxels, in slabs of the fine grid."""
    factors, shape = settings.factors, settings.shape
    x, y, z = _normalised(field.shape)  # type: ignore[arg-type]
    out = np.empty((len(settings.echo_times), *shape), dtype=np.complex64)
    thick = max(1, 16 // factors[0])
    for start in range(0, shape[0], thick):
        stop = min(start + thick, shape[0])
        part = slice(start * factors[0], stop * factors[0])
        xs = x[part]
        offset = _phase_offset((xs, y, z), settings.phase_offset)
        bias = np.exp(np.float32(-0.35) * ((xs - 0.2) ** 2 + (y + 0.1) ** 2 + (z - 0.3) ** 2))
        amplitude = tissue["density"][part] * bias
        for echo, time in enumerate(settings.echo_times):
            phase = field[part] * np.float32(rad_per_ppm(settings.field_strength, time)) + offset
            if settings.bipolar and echo % 2:
                phase += np.float32(0.5) * xs
            size = amplitude * np.exp(np.float32(-time) * tissue["r2star"][part])
            sample = np.empty(phase.shape, dtype=np.complex64)
            sample.real, sample.imag = size * np.cos(phase), size * np.sin(phase)
            out[echo, start:stop] = block_mean(sample, factors)
    return out


def _add_noise(head: Head, signal: np.ndarray, settings: HeadSettings, rng: np.random.Generator) -> None:
    white = head.brain & (head.labels == INDEX["white-matter"])
    head.noise = float(np.abs(signal[0][white]).mean(dtype=np.float64) / settings.snr)
    noise = rng.standard_normal((*signal.shape, 2), dtype=np.float32) * np.float32(head.noise)
    signal += noise[..., 0] + 1j * noise[..., 1]
    if settings.conjugate:
        signal = np.conj(signal) * (1 - 2 * (np.arange(signal.shape[3]) % 2)).astype(np.float32)
    head.magnitude = np.abs(signal)
    head.wrapped_phase = np.angle(signal)
    head.wrapped_phase[head.wrapped_phase >= np.float32(np.pi)] = -np.float32(np.pi)
    head.t1w += rng.standard_normal(head.t1w.shape, dtype=np.float32) * np.float32(1000 / max(settings.snr, 20.0))
    np.abs(head.t1w, out=head.t1w)


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
    settings = HeadSettings(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
    simulate(settings).save(output)


if __name__ == "__main__":
    main()
