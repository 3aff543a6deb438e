"""Shapes of the digital head: which tissue lies at which point.

Head frame: x to the right, y to the front, z up, mm, origin near the middle of the head. The anatomy is a list of
closed forms (ellipsoids, tubes, sinusoidal folds) that are painted one over the other, so that any grid can sample
it. A smooth deformation changes the coordinates at which the forms are evaluated, never the sampled labels: a
deformed head is as exact as the undeformed one.

Tissue indices 1 to 11 follow the susceptibility phantom of the reconstruction challenge 2.0 (Marques 2021,
doi:10.1002/mrm.28716), from which the susceptibilities of the brain are taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from qsmxt.phantom.deformation import Deformation

Box = tuple[slice, slice, slice]
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Tissue:
    """Properties of one tissue.

    Attributes
    ----------
    index, name
        Value in the label volume and name.
    chi
        Susceptibility relative to soft tissue, ppm.
    r2star
        Transverse relaxation rate at 3 T, 1/s.
    density
        Signal at echo time zero of the gradient echo, 1 = water.
    t1w
        Signal of the T1-weighted volume, white matter = 1.
    """

    index: int
    name: str
    chi: float
    r2star: float
    density: float
    t1w: float


TISSUES = (
    Tissue(0, "air", 9.4, 0.0, 0.0, 0.0),
    Tissue(1, "caudate", 0.044, 24.0, 0.88, 0.72),
    Tissue(2, "pallidum", 0.131, 38.0, 0.75, 0.90),
    Tissue(3, "putamen", 0.038, 25.0, 0.86, 0.74),
    Tissue(4, "red-nucleus", 0.100, 33.0, 0.80, 0.88),
    Tissue(5, "dentate", 0.152, 32.0, 0.80, 0.86),
    Tissue(6, "substantia-nigra", 0.111, 35.0, 0.78, 0.86),
    Tissue(7, "thalamus", 0.020, 20.0, 0.85, 0.82),
    Tissue(8, "white-matter", -0.030, 21.0, 0.80, 1.0),
    Tissue(9, "grey-matter", 0.020, 16.0, 0.95, 0.66),
    Tissue(10, "csf", 0.019, 4.0, 0.75, 0.22),
    Tissue(11, "vein", 0.19, 45.0, 0.70, 0.40),
    Tissue(12, "scalp", 0.0, 35.0, 0.80, 0.95),
    Tissue(13, "bone", -2.1, 200.0, 0.06, 0.08),
    Tissue(14, "calcification", -3.3, 150.0, 0.15, 0.30),
    Tissue(15, "microbleed", 1.2, 120.0, 0.30, 0.55),
    Tissue(16, "haemorrhage", 2.5, 90.0, 0.50, 0.70),
)
INDEX = {tissue.name: tissue.index for tissue in TISSUES}
#: Label value to name.
LABELS = {tissue.index: tissue.name for tissue in TISSUES}
#: Iron-rich nuclei, in the order of their indices.
DEEP_GREY = (1, 2, 3, 4, 5, 6)
#: Tissue with texture: deep grey, thalamus, white and grey matter.
PARENCHYMA = (1, 2, 3, 4, 5, 6, 7, 8, 9)


@dataclass(frozen=True)
class Ellipsoid:
    """Centre and half axes, mm, turned by ``angle`` degrees about ``axis`` (0 = x, 2 = z)."""

    centre: Point
    radii: Point
    angle: float = 0.0
    axis: int = 0

    def level(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Squared normalised radius: at most 1 inside."""
        dx, dy, dz = (c - np.float32(m) for c, m in zip((x, y, z), self.centre, strict=True))
        cosine, sine = np.float32(np.cos(np.deg2rad(self.angle))), np.float32(np.sin(np.deg2rad(self.angle)))
        if self.angle and self.axis == 0:
            dy, dz = cosine * dy + sine * dz, cosine * dz - sine * dy
        elif self.angle:
            dx, dy = cosine * dx + sine * dy, cosine * dy - sine * dx
        a, b, c = (np.float32(r) for r in self.radii)
        return (dx / a) ** 2 + (dy / b) ** 2 + (dz / c) ** 2

    def reach(self) -> Point:
        """Half widths of a box around the ellipsoid, mm."""
        if not self.angle:
            return self.radii
        turned = [1, 2] if self.axis == 0 else [0, 1]
        widest = max(self.radii[i] for i in turned)
        return tuple(widest if i in turned else r for i, r in enumerate(self.radii))  # type: ignore[return-value]

    def mirrored(self, side: int) -> Ellipsoid:
        """The same shape on the right (+1) or left (-1)."""
        x, y, z = self.centre
        return Ellipsoid((side * x, y, z), self.radii, self.angle if self.axis == 0 else side * self.angle, self.axis)


SCALP = Ellipsoid((0, 0, 8), (80, 98, 88))
BONE = Ellipsoid((0, 0, 8), (75, 93, 82))
INNER_SKULL = Ellipsoid((0, 0, 8), (70, 88, 77))
CEREBRUM = Ellipsoid((0, 0, 8), (66, 84, 72))
NECK = (55.0, 60.0, -20.0)
BONE_FLOOR, CSF_FLOOR, GREY_FLOOR, WHITE_FLOOR = -66.0, -62.0, -58.0, -50.0
CEREBELLUM = (Ellipsoid((0, -45, -42), (48, 32, 22)), Ellipsoid((0, -45, -42), (38, 22, 13)))
BRAINSTEM = Ellipsoid((0, -12, -45), (13, 13, 26))
CALCIFICATION = Ellipsoid((0, -22, 6), (2.2, 2.2, 2.2))
MICROBLEED = Ellipsoid((30, -40, 25), (1.6, 1.6, 1.6))
HAEMORRHAGE = Ellipsoid((-32, -30, 30), (9, 12, 8))
#: Painted in this order, the first name of each is the tissue; all but the third ventricle come in pairs.
PAIRED = (
    ("csf", Ellipsoid((10, 18, 18), (5, 26, 9), -15)),
    ("csf", Ellipsoid((14, -30, 14), (6, 16, 7), 20)),
    ("thalamus", Ellipsoid((10, -12, 8), (8, 13, 9))),
    ("caudate", Ellipsoid((15, 18, 12), (5, 14, 9), -20)),
    ("putamen", Ellipsoid((26, 6, 4), (6, 15, 10))),
    ("pallidum", Ellipsoid((19.5, 3, 3), (4, 9, 7))),
    ("red-nucleus", Ellipsoid((5, -14, -9), (3.2, 3.2, 3.6))),
    ("substantia-nigra", Ellipsoid((9, -9, -13), (5, 2.2, 3.4), 30, 2)),
    ("dentate", Ellipsoid((15, -46, -36), (6, 6, 4))),
)
THIRD_VENTRICLE = Ellipsoid((0, -5, 2), (2, 10, 8))
PAIRED_AIR = (
    Ellipsoid((12, 84, -8), (9, 8, 12)),  # frontal sinus
    Ellipsoid((63, -28, -38), (9, 11, 11)),  # mastoid cells
    Ellipsoid((60, -5, -42), (14, 4, 4)),  # ear canal
)
SINGLE_AIR = (Ellipsoid((0, 40, -48), (13, 16, 11)), Ellipsoid((0, 62, -66), (14, 24, 14)))  # sphenoid, nasal cavity
#: Bone between an air cavity and the brain, mm.
CAVITY_WALL = 1.0
SINUS_RADIUS = 3.5
VEINS = 60
VEIN_RADII = (0.6, 1.4)


class Coordinates:
    """Head coordinates of the samples of a grid centred on the origin.

    Parameters
    ----------
    shape, spacing
        Samples and their distance (mm) along each axis.
    deformation
        Map from space to the head frame; ``None`` for the identity.
    """

    def __init__(self, shape: tuple[int, int, int], spacing: Point, deformation: Deformation | None = None) -> None:
        self.shape, self.spacing, self.deformation = shape, spacing, deformation
        self.axes = tuple(
            ((np.arange(n) - (n - 1) / 2) * h).astype(np.float32) for n, h in zip(shape, spacing, strict=True)
        )
        self._volumes: tuple[np.ndarray, ...] = ()
        self.stray = 0.0
        if deformation is not None:
            self._volumes = tuple(deformation.volume(c, self.axes) for c in range(3))  # type: ignore[arg-type]
            coarse = [np.linspace(a[0], a[-1], 25) for a in self.axes]
            corners = np.stack(np.meshgrid(*coarse, indexing="ij"), -1).reshape(-1, 3)
            self.stray = float(np.abs(deformation.at(corners) - corners).max()) + 1.0

    @property
    def everywhere(self) -> Box:
        """Box of the whole grid."""
        return slice(0, self.shape[0]), slice(0, self.shape[1]), slice(0, self.shape[2])

    def at(self, box: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Head coordinates in ``box``, shaped for broadcasting."""
        if self._volumes:
            x, y, z = (v[box] for v in self._volumes)
            return x, y, z
        x, y, z = (axis[part] for axis, part in zip(self.axes, box, strict=True))
        return x[:, None, None], y[None, :, None], z[None, None, :]

    def box(self, centre: Point, reach: Point) -> Box:
        """Smallest box that surely contains all samples within ``reach`` of ``centre``."""
        parts = []
        for axis, c, r in zip(self.axes, centre, reach, strict=True):
            wide = r + self.stray
            parts.append(slice(*np.searchsorted(axis, [c - wide, c + wide + 1e-3])))
        return parts[0], parts[1], parts[2]

    def slabs(self, thickness: int = 16) -> Iterator[Box]:
        """The whole grid in boxes of ``thickness`` along the first axis."""
        for start in range(0, self.shape[0], thickness):
            yield slice(start, min(start + thickness, self.shape[0])), slice(0, self.shape[1]), slice(0, self.shape[2])

    def near(self, points: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Indices of all samples within ``radius`` (mm) of one of ``points`` ``(n, 3)`` of the head frame."""
        where = points if self.deformation is None else self.deformation.inverse(points)
        size = np.array(self.shape)
        base = np.unique(np.rint(where / self.spacing + (size - 1) / 2).astype(int), axis=0)
        sides = [np.arange(-n, n + 1) for n in (int(np.ceil(1.5 * radius / h)) + 1 for h in self.spacing)]
        offsets = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, 3)
        index = (base[:, None] + offsets).reshape(-1, 3)
        index = index[((index >= 0) & (index < size)).all(axis=1)]
        flat = np.unique(np.ravel_multi_index(tuple(index.T), self.shape))
        i, j, k = np.unravel_index(flat, self.shape)
        if self._volumes:
            here = np.stack([volume[i, j, k] for volume in self._volumes], axis=1)
        else:
            here = np.stack([axis[n] for axis, n in zip(self.axes, (i, j, k), strict=True)], axis=1)
        close = cKDTree(points).query(here.astype(np.float64))[0] <= radius
        return i[close], j[close], k[close]


def paint(
    coordinates: Coordinates, rng: np.random.Generator, *, haemorrhage: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Tissue at every sample.

    Returns
    -------
    labels
        Index of the tissue, uint8.
    brain
        Whether the sample belongs to the brain: everything inside the cortical surface, the cerebellum and the
        brainstem, with the ventricles, the interhemispheric fissure, veins and lesions in it; without the
        subarachnoid space, the sagittal sinus, air and the thin bone around the air.
    """
    labels = np.zeros(coordinates.shape, dtype=np.uint8)
    brain = np.zeros(coordinates.shape, dtype=bool)
    for box in coordinates.slabs():
        _paint_layers(labels[box], brain[box], coordinates.at(box))
    for name, shape in PAIRED:
        for side in (1, -1):
            _paint_ellipsoid(labels, coordinates, shape.mirrored(side), name, brain)
    _paint_ellipsoid(labels, coordinates, THIRD_VENTRICLE, "csf", brain)
    _paint_veins(labels, coordinates, rng)
    sinus = coordinates.near(_sagittal_sinus(), SINUS_RADIUS)
    labels[sinus] = INDEX["vein"]
    brain[sinus] = False
    _paint_ellipsoid(labels, coordinates, CALCIFICATION, "calcification", brain)
    _paint_ellipsoid(labels, coordinates, MICROBLEED, "microbleed", brain)
    if haemorrhage:
        _paint_ellipsoid(labels, coordinates, HAEMORRHAGE, "haemorrhage", brain)
    cavities = (*(e.mirrored(side) for e in PAIRED_AIR for side in (1, -1)), *SINGLE_AIR)
    for shape in cavities:
        wall = Ellipsoid(shape.centre, tuple(r + CAVITY_WALL for r in shape.radii))  # type: ignore[arg-type]
        _paint_ellipsoid(labels, coordinates, wall, "bone", (labels == INDEX["csf"]) | brain)
    for shape in cavities:
        _paint_ellipsoid(labels, coordinates, shape, "air")
    brain &= (labels != INDEX["air"]) & (labels != INDEX["bone"])
    return labels, brain


def _paint_layers(labels: np.ndarray, brain: np.ndarray, xyz: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Neck, scalp, bone, CSF, grey and white matter, cerebellum and brainstem, from outside to inside."""
    x, y, z = xyz
    neck = ((x / NECK[0]) ** 2 + (y / NECK[1]) ** 2 <= 1) & (z < NECK[2])
    labels[neck | (SCALP.level(x, y, z) <= 1)] = INDEX["scalp"]
    labels[(BONE.level(x, y, z) <= 1) & (z > BONE_FLOOR)] = INDEX["bone"]
    inner = (INNER_SKULL.level(x, y, z) <= 1) & (z > CSF_FLOOR)
    labels[inner] = INDEX["csf"]
    radius = np.sqrt(CEREBRUM.level(x, y, z))
    folds = np.sin(0.19 * x + 0.3) * np.sin(0.21 * y) * np.sin(0.17 * z + 0.5)
    cerebrum = inner & (radius + 0.035 * folds <= 1) & (z > GREY_FLOOR)
    folds = np.sin(0.45 * x) * np.sin(0.42 * y + 0.7) * np.sin(0.4 * z)
    white = cerebrum & (radius + 0.09 * folds <= 0.90) & (z > WHITE_FLOOR)
    labels[cerebrum] = INDEX["grey-matter"]
    labels[white] = INDEX["white-matter"]
    labels[cerebrum & (np.abs(x) < 1.2) & (z > 10)] = INDEX["csf"]
    outer = inner & (CEREBELLUM[0].level(x, y, z) <= 1)
    labels[outer] = INDEX["grey-matter"]
    stem = inner & (BRAINSTEM.level(x, y, z) <= 1)
    labels[outer & (CEREBELLUM[1].level(x, y, z) <= 1) | stem] = INDEX["white-matter"]
    brain |= cerebrum | outer | stem


def _paint_ellipsoid(
    labels: np.ndarray, coordinates: Coordinates, shape: Ellipsoid, name: str, within: np.ndarray | None = None
) -> None:
    box = coordinates.box(shape.centre, shape.reach())
    inside = shape.level(*coordinates.at(box)) <= 1
    if within is not None:
        inside &= within[box]
    labels[box][inside] = INDEX[name]


def _paint_veins(labels: np.ndarray, coordinates: Coordinates, rng: np.random.Generator) -> None:
    """Random veins from the cortex inwards; they spare the deep nuclei and never leave the skull."""
    open_to_veins = np.isin(np.arange(len(TISSUES)), [INDEX[n] for n in ("white-matter", "grey-matter", "csf")])
    for _ in range(VEINS):
        curve, radius = _random_vein(rng, min(coordinates.spacing) / 2)
        index = coordinates.near(curve, radius)
        free = open_to_veins[labels[index]]
        labels[tuple(i[free] for i in index)] = INDEX["vein"]


def _random_vein(rng: np.random.Generator, step: float) -> tuple[np.ndarray, float]:
    """Points of a quadratic Bezier curve, at most ``step`` apart, and the radius of the vein, mm."""
    direction = rng.normal(size=3)
    direction[2] = abs(direction[2]) if direction[2] < -0.4 else direction[2]
    direction /= np.linalg.norm(direction)
    inward = direction + rng.normal(0, 0.35, 3)
    inward /= np.linalg.norm(inward)
    radii, centre = np.array(CEREBRUM.radii), np.array(CEREBRUM.centre)
    start = centre + 0.93 * radii * direction
    end = centre + rng.uniform(0.3, 0.55) * radii * inward
    bend = (start + end) / 2 + rng.normal(0, 8, 3)
    length = np.linalg.norm(start - bend) + np.linalg.norm(bend - end)
    t = np.linspace(0, 1, int(2 * length / step) + 2)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end, float(rng.uniform(*VEIN_RADII))


def _sagittal_sinus() -> np.ndarray:
    """Points along the superior sagittal sinus, from the forehead over the vault to the occiput, 0.3 mm apart."""
    angle = np.deg2rad(np.arange(25.0, 195.0, 0.2))
    return np.stack([0 * angle, 85.5 * np.cos(angle), 8 + 74.5 * np.sin(angle)], axis=1)
