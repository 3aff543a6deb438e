r"""General linear model at every voxel, with permutation and threshold-free cluster enhancement.

At every voxel :math:`y = X\beta + \epsilon`, one row a participant. For a term of the model the others are confounds:
they are regressed out of data and term (Freedman and Lane; Winkler 2014, doi:10.1016/j.neuroimage.2014.01.060), and the
residuals of the data are permuted. Of the map of the term's t values the enhanced map is

.. math:: \mathrm{TFCE}(v) = \int_0^{t(v)} e(h)^{1/2}\, h^2\, dh ,

with the extent :math:`e(h)` of the cluster that voxel v belongs to at threshold h (Smith and Nichols 2009,
doi:10.1016/j.neuroimage.2008.03.061). The share of permutations whose largest value is at least that of the voxel is
its p value, which thereby holds for all voxels together (family-wise error).

The work is nilearn's (Abraham 2014, doi:10.3389/fninf.2014.00014). The order of permutations is fixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.errors import InputError

#: Start of the random permutations.
SEED = 20200318

#: Fewest participants beyond the coefficients of the model.
_FREEDOM = 3


@dataclass(frozen=True)
class TermMaps:
    """Maps of a term, ``(x, y, z)``, float32, 0 outside the mask; ``p`` are 1 there.

    ``t`` are t values, ``tfce`` is their enhancement, ``p`` the corrected p values of the latter, two-sided.
    """

    t: np.ndarray
    tfce: np.ndarray
    p: np.ndarray


def permutation_test(
    data: np.ndarray,
    mask: np.ndarray,
    affine: np.ndarray,
    design: np.ndarray,
    term: int,
    *,
    permutations: int = 1000,
) -> TermMaps:
    """Test one column of a design at every voxel.

    Parameters
    ----------
    data
        Values ``(participant, voxel)`` of the voxels of ``mask``, any unit.
    mask
        Bool volume ``(x, y, z)``.
    affine
        Voxel to world, mm.
    design
        Matrix ``(participant, column)`` without intercept, which is always part of the model.
    term
        Number of the column that is tested.
    permutations
        How many; p values are no smaller than 1 over one more.

    Raises
    ------
    InputError
        If there are too few participants, the shapes disagree, or columns depend on each other.
    """
    people, columns = design.shape
    if data.shape != (people, int(np.count_nonzero(mask))):
        raise InputError(f"voxels: expected {people} x {np.count_nonzero(mask)} values, found {data.shape}")
    if people < columns + 1 + _FREEDOM:
        raise InputError(f"voxels: expected at least {columns + 1 + _FREEDOM} participants, found {people}")
    if np.linalg.matrix_rank(np.column_stack([np.ones(people), design])) < columns + 1:
        raise InputError("voxels: expected a model whose terms can be told apart, found ones that depend on each other")
    import nibabel
    from nilearn.maskers import NiftiMasker
    from nilearn.mass_univariate import permuted_ols

    image = nibabel.Nifti1Image(mask.astype(np.uint8), affine)  # type: ignore[no-untyped-call]
    others = np.delete(design, term, axis=1)
    found = permuted_ols(
        design[:, [term]].astype(np.float64), data.astype(np.float64),
        others.astype(np.float64) if others.size else None, model_intercept=True, n_perm=permutations,
        two_sided_test=True, random_state=SEED, n_jobs=1, masker=NiftiMasker(image).fit(), tfce=True,
        output_type="dict",
    )  # fmt: skip

    def volume(values: np.ndarray, outside: float) -> np.ndarray:
        out = np.full(mask.shape, outside, dtype=np.float32)
        out[mask] = values[0]
        return out

    return TermMaps(volume(found["t"], 0), volume(found["tfce"], 0), volume(10.0 ** -found["logp_max_tfce"], 1))
