"""Two-pass artefact reduction with and without, on heads with strong sources.

Every head has a calcification (-3.3 ppm), a microbleed and veins; the second has a haemorrhage of 2.5 ppm besides. A
chain is run once over the whole mask and once over the reliable one; two passes take the second around holes, or
everywhere, as published. All are scored on the same voxels: the brain but for strong sources (calcification,
microbleed, haemorrhage), their surroundings to 8 mm, those of veins to 3 mm, and the brainstem. *step* is the mean
error one voxel outside the seam between the passes less that one voxel inside (ppm); *outside* counts values outside
the mask.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from benchmarks import chains, heads
from qsmxt.algorithms import metrics
from qsmxt.algorithms.merging.two_pass import TwoPassParameters, two_pass
from qsmxt.phantom.anatomy import BRAINSTEM, INDEX
from qsmxt.phantom.head import Head

#: Heads with strong sources, by what they have.
HEADS = {
    "calcification, veins": "3T",
    "haemorrhage, calcification, veins": "held out: 3T, 15 degrees oblique, haemorrhage",
}
#: Names of the chains that are run with and without.
COMPARED = ("default", "PDF + TV", "V-SHARP + RTS")
STRONG = ("calcification", "microbleed", "haemorrhage")
#: How far around a source its surroundings reach, mm.
NEAR = {"calcification": 8.0, "haemorrhage": 8.0, "vein": 3.0}


def brainstem(head: Head) -> np.ndarray:
    """Voxels of the brainstem."""
    axes = ((np.arange(n) - (n - 1) / 2) * v for n, v in zip(head.grid.shape, head.grid.voxel_size, strict=True))
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    return (BRAINSTEM.level(x, y, z) <= 1) & head.brain


def step(chi: np.ndarray, head: Head, reliable: np.ndarray, mask: np.ndarray) -> float:
    """Jump of the mean error (ppm) across the border of the reliable mask."""
    rest = mask & ~reliable
    outer, inner = rest & ndimage.binary_dilation(reliable), reliable & ndimage.binary_dilation(rest)
    error = chi - head.chi
    return float(error[outer].mean() - error[inner].mean()) if outer.any() and inner.any() else 0.0


def scores(chi: np.ndarray, head: Head, mask: np.ndarray, reliable: np.ndarray) -> dict[str, float]:
    """Columns of the table; NRMSE in percent."""
    strong = np.isin(head.labels, [INDEX[name] for name in STRONG])
    tissue = head.brain & mask & ~strong
    found = {"NRMSE": metrics.nrmse(chi, head.chi, tissue)}
    for name, distance in NEAR.items():
        source = head.labels == INDEX[name]
        near = tissue & (ndimage.distance_transform_edt(~source, head.grid.voxel_size) <= distance)
        found[f"near {name}"] = metrics.nrmse(chi, head.chi, near) if source.any() else float("nan")
    return {
        **found,
        "brainstem": metrics.nrmse(chi, head.chi, brainstem(head) & mask),
        "deep grey slope": metrics.slope(chi, head.chi, head.labels, tissue),
        "step ppm": step(chi, head, reliable, mask),
        "outside": int((chi[~mask] != 0).sum()),
    }


def table(only: str = "") -> Iterator[tuple[str, dict[str, float]]]:
    """Rows: every chain without and with two passes, on every head."""
    for sources, name in HEADS.items():
        head = heads.head(name)
        for chain in chains.CHAINS:
            if chain.name not in COMPARED or only not in f"{sources}, {chain.name}":
                continue
            whole = chains.run(chain, head)
            part = chains.run(chains.Chain(chain.name, chain.methods, reliable=True), head)
            yield f"{sources}; {chain.name}, one pass", scores(whole.chi, head, whole.mask, part.mask)
            for merging, parameters in (
                ("two passes", TwoPassParameters()),
                ("everywhere", TwoPassParameters(reach=0)),
            ):
                merged = two_pass(part.chi, part.mask, whole.chi, whole.mask, head.grid, parameters)
                yield f"{sources}; {chain.name}, {merging}", scores(merged, head, whole.mask, part.mask)
