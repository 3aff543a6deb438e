"""Stored reference values of every method: how they are made, compared and renewed.

For the phantom of :mod:`tests.contracts.test_methods` the products of a method are summed up by a few numbers: the
values at eight voxels, sums over all voxels with random signs, mean and norm. They are kept in
``values.json``, with the version, day and reason of the last change of each method.

When a change of numbers is wanted, ``python -m tests.references.make "REASON" [METHOD ...]`` renews the entries that no
longer hold, and only those; the reason is kept with them and belongs into ``CHANGES.md``. What the numbers are worth is
said by the oracle of the method, see :mod:`tests.contracts.test_references`.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import platform
import sys
from pathlib import Path

import numpy as np

import qsmxt
from tests.contracts.test_methods import GRID, METHODS, PARAMETERS, SHAPE, arrays, inputs, names, plain

FILE = Path(__file__).with_name("values.json")

#: Greatest difference, relative to the product: rounding differs between processors.
TOLERANCE = 1e-3

#: Root mean square (in the unit of the product) below which a product is rounding noise and counts by its size only.
FLOOR = 1e-5

#: Parameters of methods whose iterations amplify the rounding of a processor beyond the tolerance: fewer of them.
FEWER: dict[str, dict[str, object]] = {
    "background.pdf": {"iterations": 6},
    "background.harperella": {"iterations": 6},
    "background.iharperella": {"iterations": 6},
    "background.msmv": {"initial": "lbv"},
}

#: Voxels whose values are kept, all of them in the mask.
VOXELS = ((10, 11, 9), (7, 13, 9), (13, 9, 10), (10, 15, 7), (4, 11, 9), (15, 12, 8), (10, 5, 11), (12, 13, 13))

#: Number of sums with random signs: two maps that differ have other sums.
SUMS = 6


def _signs(size: int) -> np.ndarray:
    """Signs of the sums, the same for every array of this size."""
    return np.where(np.random.default_rng(size).random((SUMS, size)) < 0.5, -1.0, 1.0)


def summary(product: np.ndarray) -> dict[str, object]:
    """The numbers of one product, all relative to its root mean square but this one itself."""
    values = np.asarray(product, dtype=np.float64)
    size = float(np.sqrt(np.mean(values**2)))
    unit = size if size > 0 else 1.0
    relative = values / unit
    points = [relative[(..., *voxel)] for voxel in VOXELS] if values.shape[-3:] == SHAPE else [relative]
    return {
        "rms": size,
        "mean": float(relative.mean()),
        "sums": [float(s) for s in _signs(values.size) @ relative.ravel() / np.sqrt(values.size)],
        "voxels": [float(v) for v in np.ravel(points)],
    }


def difference(found: dict, stored: dict) -> float:
    """Greatest difference of two summaries relative to the product; infinite if they are of arrays of other shapes."""
    if len(found["voxels"]) != len(stored["voxels"]):
        return float("inf")
    worst = [abs(found["rms"] - stored["rms"]) / max(stored["rms"], FLOOR)]
    if stored["rms"] < FLOOR:
        return TOLERANCE * abs(found["rms"] - stored["rms"]) / FLOOR
    peak = max(1.0, *(abs(v) for v in stored["voxels"]))
    worst.append(abs(found["mean"] - stored["mean"]))
    for name, scale in (("sums", 1.0), ("voxels", peak)):
        worst += [abs(a - b) / scale for a, b in zip(found[name], stored[name], strict=True)]
    return max(worst)


def parameters(key: str) -> dict[str, object]:
    """Parameters of a method that are not the default."""
    return PARAMETERS[key] | FEWER.get(key, {})


def summaries(key: str) -> dict[str, dict]:
    """Summaries of all products of a method."""
    method = METHODS[key]
    products = method.run(inputs(names(method)), GRID, parameters(key)) if key in FEWER else plain(key)
    return {name: summary(value) for name, value in products.items()}


def holds(key: str, stored: dict | None) -> bool:
    """Whether a method still gives what is stored."""
    if stored is None:
        return False
    found = summaries(key)
    products = stored["products"]
    return set(found) == set(products) and all(difference(found[n], products[n]) <= TOLERANCE for n in found)


def load() -> dict[str, dict]:
    """What is stored, by method."""
    return json.loads(FILE.read_text(encoding="utf-8"))["methods"] if FILE.exists() else {}


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {name: _rounded(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def phantom() -> float:
    """What tells one phantom from another: the norm of every array that methods consume."""
    norms = (np.linalg.norm(np.asarray(a, dtype=np.float64)) for a in arrays().values())
    return float(f"{sum(norms):.8g}")


def entry(key: str, reason: str) -> dict:
    """A new entry for a method."""
    return {
        "reason": reason,
        "day": datetime.date.today().isoformat(),
        "version": qsmxt.__version__,
        "parameters": dataclasses.asdict(METHODS[key].configure(parameters(key))),
        "products": _rounded(summaries(key)),
    }


def main(arguments: list[str]) -> None:
    """Renew what no longer holds."""
    if not arguments:
        raise SystemExit('usage: python -m tests.references.make "REASON" [METHOD ...]')
    reason, keys = arguments[0], arguments[1:] or list(METHODS)
    stored = load()
    changed = [key for key in keys if not holds(key, stored.get(key))]
    stored |= {key: entry(key, reason) for key in changed}
    whole = {
        "phantom": {"source": "qsmxt.phantom.example", "norms": phantom()},
        "command": 'python -m tests.references.make "REASON"',
        "made with": f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}",
        "methods": {key: stored[key] for key in METHODS if key in stored},
    }
    lines = json.dumps({name: value for name, value in whole.items() if name != "methods"}, indent=1)[:-2]
    entries = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in whole["methods"].items())
    FILE.write_text(f'{lines},\n "methods": {{\n{entries}\n }}\n}}\n', encoding="utf-8")
    print(f"{len(changed)} of {len(keys)} renewed: {', '.join(changed) or 'none'}")


if __name__ == "__main__":
    main(sys.argv[1:])
