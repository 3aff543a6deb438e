"""Settings: precedence, refusal of what does not exist, completeness."""

from __future__ import annotations

import tomllib

import pytest

from qsmxt import config
from qsmxt.errors import MissingInputError, ParameterError


def _toml(path, text):
    path.write_text(text)
    return path


def test_later_layers_win_value_by_value(tmp_path):
    file = _toml(
        tmp_path / "a.toml", '[inversion]\nmethod = "tkd"\n[inversion.tkd]\nthreshold = 0.1\ncorrect = false\n'
    )
    settings = config.load("body", file, {"inversion": {"tkd": {"threshold": 0.2}}})
    complete = settings.stage("inversion").complete("inversion")
    assert (complete["threshold"], complete["correct"]) == (0.2, False)
    assert settings.masking.human_brain is False, "of the preset"
    default = config.load()
    assert settings.stage("unwrapping") == default.stage("unwrapping"), "of the default preset"


def test_lists_are_replaced_not_joined():
    merged = config.merge({"masking": {"sections": ["a", "b"]}}, {"masking": {"sections": ["c"]}})
    assert merged == {"masking": {"sections": ["c"]}}


def test_merging_changes_none_of_its_layers():
    first, second = {"inversion": {"tkd": {"threshold": 0.1}}}, {"inversion": {"tkd": {"threshold": 0.2}}}
    config.merge(first, second)
    assert first == {"inversion": {"tkd": {"threshold": 0.1}}}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"inversoin": {}}, "unknown 'inversoin'; did you mean inversion"),
        ({"inversion": {"method": "tdk"}}, "inversion.method: unknown 'tdk'; did you mean tkd"),
        ({"inversion": {"tkd": {"treshold": 1}}}, "inversion.tkd: unknown 'treshold'; did you mean threshold"),
        ({"outputs": {"r2stars": True}}, "outputs: unknown 'r2stars'; did you mean r2star"),
        ({"single_echo": {"offset": {"key": "x"}}}, "single_echo.offset: unknown 'key'"),
        ({"inversion": {"tkd": 3}}, "expected a table of parameters"),
        ({"inversion": 3}, "expected a table"),
        ({"inversion": {"tkd": {"threshold": 5.0}}}, "< 0.666667"),
        ({"acquisition": {"phase_sign": "up"}}, "one of auto"),
    ],
)
def test_what_does_not_exist_or_fit_is_refused(layer, message):
    with pytest.raises(ParameterError, match=message):
        config.load(flags=layer)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(MissingInputError, match="cannot be read"):
        config.load(file=tmp_path / "absent.toml")
    with pytest.raises(ParameterError, match="expected TOML"):
        config.load(file=_toml(tmp_path / "b.toml", "= nonsense"))
    with pytest.raises(ParameterError, match="unknown preset"):
        config.load("nonsense")


@pytest.mark.parametrize("preset", config.preset_names())
def test_saved_settings_are_complete_and_read_back_the_same(preset, tmp_path):
    settings = config.load(preset, flags={"execution": {"nprocs": 3}, "acquisition": {"phase_range": (0, 4095)}})
    text = config.to_toml(settings, {"started": "now"})
    again = config.load(file=_toml(tmp_path / "saved.toml", text))
    assert again.to_dict() == settings.to_dict()
    saved = tomllib.loads(text)
    for stage, method in settings.chosen().items():
        assert set(saved[stage].get(method.key, {})) == {
            p.name for p in method.declarations if settings.stage(stage).complete(stage)[p.name] is not None
        }


def test_one_echo_may_have_its_own_method_unless_a_later_layer_names_one():
    base = {
        "offset": {"method": "none"},
        "inversion": {"method": "tv"},
        "single_echo": {"inversion": {"method": "tkd"}},
    }
    settings = config.build(config.merge(base))
    assert settings.stage("inversion", 1).method == "tkd" and settings.stage("inversion", 3).method == "tv"
    chosen = config.build(config.merge(base, {"inversion": {"method": "tsvd"}}))
    assert chosen.stage("inversion", 1).method == "tsvd"


def test_presets_describe_themselves_and_the_default_comes_first():
    assert config.preset_names()[0] == config.DEFAULT_PRESET
    assert all(config.preset_descriptions().values())


def test_presets_for_masks_agree_with_the_named_masks():
    from qsmxt.algorithms.masking.presets import PRESETS

    for name, preset in PRESETS.items():
        masking = config.load(name).masking
        assert (masking.sections, masking.combine, masking.human_brain) == (
            preset.sections, preset.combine, preset.human_brain,
        )  # fmt: skip


def test_a_mask_that_nothing_can_make_is_refused_with_the_settings():
    with pytest.raises(ParameterError, match=r"expected a refinement.*found 'widen'"):
        config.load(flags={"masking": {"sections": ["magnitude,bet,widen"]}})
