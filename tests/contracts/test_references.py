"""No number changes unnoticed: every method gives the stored values, and its oracle is named.

The values (``tests/references/values.json``) are those of the method itself on the phantom of
:mod:`tests.contracts.test_methods`; that they are right is what the oracle of the method tells, which is one of

``solved``
    the same equation solved by other, slower means: matrices, scipy, sums voxel by voxel;
``closed``
    a formula, or an identity that determines the result;
``known``
    a phantom whose truth is known, where there is no equation to solve.

A change that is wanted: ``python -m tests.references.make "REASON"``, and the reason into ``CHANGES.md``.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from qsmxt.registry.methods import all_methods
from tests.contracts.test_methods import METHODS
from tests.references import make

ALGORITHMS = Path(__file__).parents[1] / "algorithms"

#: Method -> kind of its oracle, file of its stage and test.
ORACLES: dict[str, tuple[str, str, str]] = {
    "combination.mcpc3ds": ("solved", "test_oracles", "test_combination_is_the_sum_without_the_known_offsets"),
    "combination.aspire": ("solved", "test_oracles", "test_combination_is_the_sum_without_the_known_offsets"),
    "offset.mcpc3ds": ("solved", "test_oracles", "test_mcpc3ds_is_the_smoothed_difference_of_the_echoes"),
    "offset.none": ("closed", "test_mcpc3ds", "test_none_keeps_the_phase"),
    "unwrapping.laplacian": ("solved", "test_oracles", "test_laplacian_is_the_least_squares_of_wrapped_differences"),
    "unwrapping.romeo": ("solved", "test_growing", "test_growing_takes_the_same_path_as_an_obvious_prim"),
    "field.joint_fit": (
        "solved", "test_oracles", "test_joint_fit_is_the_least_squares_of_scipy_with_the_true_offset"
    ),
    "field.linear_fit": ("solved", "test_oracles", "test_linear_fit_is_polyfit_with_the_magnitude_as_weight"),
    "field.nonlinear_fit": ("solved", "test_oracles", "test_nonlinear_fit_is_the_complex_least_squares_of_scipy"),
    "field.weighted_fit": ("solved", "test_oracles", "test_weighted_fit_is_the_average_over_the_echoes"),
    "masking.otsu": ("solved", "test_otsu", "test_threshold_maximises_the_variance_between_the_classes"),
    "masking.bet": ("known", "test_bet", "test_a_sphere_of_known_radius_off_centre"),
    "masking.close": ("solved", "test_oracles", "test_morphology_is_that_of_scipy_with_an_ellipsoid_of_voxels"),
    "masking.dilate": ("solved", "test_oracles", "test_morphology_is_that_of_scipy_with_an_ellipsoid_of_voxels"),
    "masking.erode": ("solved", "test_oracles", "test_morphology_is_that_of_scipy_with_an_ellipsoid_of_voxels"),
    "masking.fill": ("solved", "test_oracles", "test_fill_adds_the_labelled_cavities_of_scipy"),
    "masking.gaussian": ("closed", "test_gaussian", "test_the_bin_with_the_largest_deficit_is_chosen"),
    "masking.gmm": ("closed", "test_gmm", "test_the_threshold_is_where_both_classes_are_equally_likely"),
    "masking.hagberg": ("solved", "test_oracles", "test_hagberg_counts_changes_of_sign_over_the_sphere"),
    "masking.homogeneity": ("known", "test_homogeneity", "test_a_smooth_bias_is_divided_out"),
    "masking.largest": ("solved", "test_oracles", "test_largest_is_the_largest_label_of_scipy"),
    "masking.open": ("solved", "test_oracles", "test_morphology_is_that_of_scipy_with_an_ellipsoid_of_voxels"),
    "masking.trim": ("closed", "test_trim", "test_open_cavities_and_rims_go_and_inclusions_stay"),
    "masking.peel": ("known", "test_peel", "test_the_fluid_around_goes_and_that_inside_stays"),
    "masking.percentile": ("closed", "test_percentile", "test_the_share_above_is_what_was_asked_for"),
    "masking.quality": ("closed", "test_quality", "test_the_reliable_block_without_its_hole"),
    "masking.robust": ("known", "test_robust", "test_a_noisy_ball_with_a_cavity"),
    "masking.smooth": ("solved", "test_oracles", "test_smooth_is_half_of_the_gaussian_of_scipy"),
    "masking.snr": ("closed", "test_snr", "test_a_weak_side_is_removed_to_a_depth"),
    "masking.ventricles": ("known", "test_ventricles", "test_the_ventricles_are_found_and_no_other_fluid"),
    "masking.value": ("closed", "test_value", "test_what_the_threshold_refers_to"),
    "background.lbv": ("solved", "test_oracles", "test_lbv_subtracts_the_dense_solution_of_laplace"),
    "background.harperella": (
        "solved", "test_oracles", "test_harperella_completes_the_laplacian_by_dense_conjugate_gradients"
    ),
    "background.iharperella": (
        "solved", "test_oracles", "test_harperella_completes_the_laplacian_by_dense_conjugate_gradients"
    ),
    "background.ismv": ("solved", "test_ismv", "test_result_is_the_fixed_point_of_the_iteration"),
    "background.pdf": ("solved", "test_oracles", "test_pdf_is_lsqr_of_the_dipoles_outside"),
    "background.vsharp": ("solved", "test_sharp", "test_vsharp_takes_the_largest_sphere_that_fits"),
    "background.msmv": ("solved", "test_oracles", "test_msmv_is_the_plain_loop_over_the_rim"),
    "background.resharp": ("solved", "test_resharp", "test_result_minimises_the_functional_of_the_paper"),
    "background.sharp": ("solved", "test_sharp", "test_sharp_is_the_plain_formula"),
    "background.tvpdf": (
        "solved", "test_oracles", "test_tvpdf_is_the_local_field_of_the_inversion_and_at_the_rim_that_of_its_sources"
    ),
    "inversion.amppe": (
        "solved", "test_plain_iterations", "test_amppe_is_the_plain_alternation_of_map_and_estimates"
    ),
    "inversion.hdqsm": ("solved", "test_oracles", "test_hdqsm_is_at_the_minimum_of_both_stages"),
    "inversion.ilsqr": ("solved", "test_plain_iterations", "test_ilsqr_is_the_plain_three_steps"),
    "inversion.l1qsm": ("solved", "test_oracles", "test_l1qsm_is_at_the_minimum"),
    "inversion.medi": ("solved", "test_oracles", "test_medi_is_at_the_minimum"),
    "inversion.ndi": ("solved", "test_oracles", "test_ndi_is_the_plain_descent"),
    "inversion.network": ("closed", "test_network", "test_b0_is_along_the_last_axis_of_the_network"),
    "inversion.nltgv": ("solved", "test_oracles", "test_nltgv_is_at_the_minimum"),
    "inversion.nltv": ("solved", "test_oracles", "test_nltv_is_at_the_minimum"),
    "inversion.qsmart": ("solved", "test_plain_iterations", "test_qsmart_is_ilsqr_of_the_plainly_filtered_field"),
    "inversion.rts": ("solved", "test_oracles", "test_rts_is_lsmr_and_the_minimum_of_total_variation"),
    "inversion.star": ("solved", "test_oracles", "test_star_is_at_the_minimum_of_both_levels"),
    "inversion.tfi": ("solved", "test_oracles", "test_tfi_is_at_the_minimum"),
    "inversion.tgv": ("solved", "test_oracles", "test_tgv_is_at_the_minimum"),
    "inversion.tgv_phase": ("solved", "test_oracles", "test_tgv_of_wrapped_phase_is_that_of_its_field"),
    "inversion.tikhonov": ("solved", "test_oracles", "test_tikhonov_solves_the_normal_equations"),
    "inversion.tkd": ("solved", "test_oracles", "test_tkd_replaces_small_eigenvalues_of_the_dipole_matrix"),
    "inversion.totalnetwork": ("closed", "test_network", "test_b0_is_along_the_last_axis_of_the_network"),
    "inversion.tsvd": ("solved", "test_oracles", "test_tsvd_is_the_truncated_pseudoinverse"),
    "inversion.tv": ("solved", "test_oracles", "test_tv_is_at_the_minimum"),
    "inversion.tvtfi": ("solved", "test_plain_iterations", "test_tvtfi_is_the_plain_iteration"),
    "inversion.whqsm": ("solved", "test_oracles", "test_whqsm_finds_map_and_harmonic_remnant_of_least_cost"),
    "merging.echo_mean": ("closed", "test_echo_mean", "test_weights_are_those_of_least_variance"),
    "merging.two_pass": ("closed", "test_two_pass", "test_every_voxel_comes_from_exactly_one_map"),
    "referencing.csf": ("closed", "test_referencing", "test_the_region_has_mean_zero_afterwards"),
    "referencing.mean": ("closed", "test_referencing", "test_the_region_has_mean_zero_afterwards"),
    "referencing.none": ("closed", "test_referencing", "test_none_keeps_the_map_in_the_mask"),
    "referencing.region": ("closed", "test_referencing", "test_the_region_has_mean_zero_afterwards"),
    "swi.clearswi": ("solved", "test_oracles", "test_clearswi_is_softplus_times_the_tanh_of_the_frequency"),
    "swi.homodyne": ("solved", "test_oracles", "test_homodyne_is_the_filter_written_as_a_sum_over_frequencies"),
    "swi.smwi": ("closed", "test_swi", "test_smwi_is_its_closed_form"),
    "relaxometry.arlo": ("solved", "test_oracles", "test_arlo_is_the_regression_on_integrals_of_parabolas"),
    "relaxometry.loglinear": (
        "solved", "test_oracles", "test_loglinear_is_polyfit_with_the_weights_of_the_logarithm"
    ),
    "relaxometry.nonlinear": ("solved", "test_oracles", "test_nonlinear_is_the_least_squares_of_scipy"),
    "relaxometry.numart2star": ("solved", "test_oracles", "test_numart2star_is_the_trapezoidal_rule"),
    "spinecho.epg": ("solved", "test_oracles", "test_trains_are_those_of_the_bloch_equation"),
    "separation.chiseparation": (
        "solved", "test_oracles", "test_chiseparation_is_the_bounded_least_squares_of_scipy"
    ),
    "separation.closedform": ("closed", "test_separation", "test_closed_form_is_exact_where_the_model_holds"),
    "separation.decompose": ("solved", "test_oracles", "test_decompose_fits_as_well_as_scipy"),
    "separation.hcchisep": (
        "solved", "test_oracles", "test_hollow_cylinders_are_looked_up_as_by_a_search_over_the_table"
    ),
    "separation.r2starqsm": ("closed", "test_separation", "test_r2starqsm_is_the_closed_form_of_r2star_alone"),
    "separation.wavesep": ("solved", "test_oracles", "test_wavesep_is_the_plain_proximal_gradient"),
    "orientation.cosmos": ("solved", "test_oracles", "test_cosmos_is_at_the_minimum"),
    "orientation.sti": ("solved", "test_oracles", "test_sti_solves_the_damped_normal_equations"),
}  # fmt: skip

ADVICE = 'if the change is wanted, run python -m tests.references.make "REASON" and tell the reason in CHANGES.md'


@pytest.mark.parametrize("key", METHODS)
def test_a_method_gives_the_stored_values(key: str):
    stored = make.load()[key]
    found = make.summaries(key)
    assert set(found) == set(stored["products"])
    worst = {name: make.difference(value, stored["products"][name]) for name, value in found.items()}
    assert max(worst.values()) <= make.TOLERANCE, f"{worst}; {ADVICE}"


def test_values_are_stored_for_every_method_with_their_provenance():
    stored = make.load()
    assert list(stored) == list(METHODS)
    for key, entry in stored.items():
        assert entry["reason"] and entry["version"] and entry["day"], key
        given = json.loads(json.dumps(make.parameters(key)))
        assert given.items() <= entry["parameters"].items(), key


def test_the_values_are_those_of_this_phantom():
    stored = json.loads(make.FILE.read_text(encoding="utf-8"))["phantom"]["norms"]
    assert make.phantom() == pytest.approx(stored, rel=1e-5), ADVICE


def test_a_difference_of_a_thousandth_anywhere_is_seen():
    product = make.plain("inversion.tv")["chi"].astype(float)
    stored = make.summary(product)
    assert make.difference(make.summary(product * (1 + 1e-4)), stored) < make.TOLERANCE
    assert make.difference(make.summary(product * (1 + 2e-3)), stored) > make.TOLERANCE
    changed = product.copy()
    changed[9, 4, 8] += 0.01 * abs(product).max()
    assert make.difference(make.summary(changed), stored) > make.TOLERANCE / 10
    assert make.difference(make.summary(product[::-1]), stored) > make.TOLERANCE


@pytest.mark.parametrize("key", all_methods())
def test_every_method_has_an_oracle(key: str):
    kind, file, name = ORACLES[key]
    assert kind in ("solved", "closed", "known")
    path = ALGORITHMS / key.split(".")[0] / f"{file}.py"
    defined = ast.parse(path.read_text(encoding="utf-8")).body
    assert name in {node.name for node in defined if isinstance(node, ast.FunctionDef)}, path


def test_oracles_name_methods_that_exist():
    assert set(ORACLES) == set(all_methods())
