"""COSMOS and tensor imaging against dense linear algebra."""

from __future__ import annotations

import dataclasses

import numpy as np

from qsmxt.algorithms import kernels
from qsmxt.algorithms.orientation.cosmos import cosmos
from qsmxt.algorithms.orientation.sti import COMPONENTS, sti
from qsmxt.geometry import Grid
from tests.algorithms import dense
from tests.algorithms.dense import Box, Term

DIRECTIONS = np.array([(0, 0, 1), (0, 0.6, 0.8), (0.6, 0, 0.8), (0, -0.6, 0.8), (-0.6, 0, 0.8), (0.6, 0.8, 0)])


def test_cosmos_is_at_the_minimum():
    """Noise of every field and voxel as weights, total variation."""
    weight = 3e-4
    grid, rng = Grid((4, 5, 4), (10.0, 10.0, 10.0)), np.random.default_rng(0)
    mask = np.ones(grid.shape, dtype=bool)
    box = Box.around(mask, grid, 20.0)
    chi = box.extract(0.1 * rng.standard_normal(grid.shape))
    half = [kernels.dipole(dataclasses.replace(box.grid, b0_direction=tuple(b)), "greens") for b in DIRECTIONS[:3]]
    dipoles = [dense.of_half(h, box.grid.shape) for h in half]
    fields = np.stack([box.restore(d @ chi) + 0.01 * rng.standard_normal(grid.shape) for d in dipoles])
    noise = rng.uniform(0.5, 3, fields.shape)
    w = np.minimum(np.median(1 / noise) ** -1 / noise, 3) ** 2
    terms = [
        Term("squared", np.concatenate(dipoles), np.concatenate([box.extract(v) for v in w]),
             np.concatenate([box.extract(v) for v in fields]))
    ]  # fmt: skip
    g = dense.gradient(box.grid)
    terms.append(Term("absolute", g, np.full(len(g), weight)))
    expected = box.restore(dense.minimum(terms, [1e-2, 1e-3, 1e-4, 1e-5, 1e-6]))
    settings = {"weight": weight, "discrepancy": 0.0, "iterations": 3000, "tolerance": 0}
    found = cosmos(
        fields.astype(np.float32), DIRECTIONS[:3], mask, grid, cosmos.method.configure(settings),
        oriented_noise=noise.astype(np.float32),
    )  # fmt: skip
    expected -= expected.mean()
    assert np.linalg.norm(found - expected) < 2e-2 * np.linalg.norm(expected)


def test_sti_solves_the_damped_normal_equations():
    """Frequencies at half the sampling rate keep the sign that the Fourier transform gives them."""
    grid, rng = Grid((3, 5, 4), (10.0, 10.0, 10.0)), np.random.default_rng(0)
    mask = np.ones(grid.shape, dtype=bool)
    box = Box.around(mask, grid, 20.0)
    fields = 0.05 * rng.standard_normal((6, *grid.shape))
    shape = box.grid.shape
    k = np.meshgrid(*[np.fft.fftfreq(n, 10.0) for n in shape[:2]], np.fft.rfftfreq(shape[2], 10.0), indexing="ij")
    square = sum(a * a for a in k)
    square[0, 0, 0] = 1
    rows = []
    for b in DIRECTIONS:
        s = sum(a * c for a, c in zip(k, b, strict=True)) / square
        row = []
        for i, j in COMPONENTS:
            part = b[i] * b[j] / 3 - s * k[i] * b[j]
            if i != j:
                part = part + b[i] * b[j] / 3 - s * k[j] * b[i]
            part[0, 0, 0] = 0
            row.append(dense.of_half(part, shape)[np.ix_(box.mask, box.mask)])
        rows.append(np.hstack(row))
    matrix = np.vstack(rows)
    data = np.concatenate([box.extract(f)[box.mask] for f in fields])
    damping = 1e-2 * 6
    expected = np.linalg.solve(matrix.T @ matrix + damping * np.eye(matrix.shape[1]), matrix.T @ data)
    settings = sti.method.configure({"damping": 1e-2, "tolerance": 1e-7, "iterations": 500})
    found = sti(fields.astype(np.float32), DIRECTIONS, mask, grid, settings)[0]
    tensor = found[:, mask].ravel()
    assert np.linalg.norm(tensor - expected) < 1e-3 * np.linalg.norm(expected)
