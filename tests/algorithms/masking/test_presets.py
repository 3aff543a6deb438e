"""Presets can be parsed and name what there is."""

from __future__ import annotations

import pytest

from qsmxt.algorithms.masking.build import COMBINATIONS
from qsmxt.algorithms.masking.presets import PRESETS, mask_preset
from qsmxt.errors import ParameterError
from qsmxt.registry.mask_sections import parse_sections


@pytest.mark.parametrize("name", ["gre", "epi", "bet", "fast", "body", "phantom"])
def test_sections_can_be_parsed(name):
    preset = mask_preset(name)
    assert len(parse_sections(preset.sections)) == len(preset.sections)
    assert preset.combine in COMBINATIONS and preset.summary
    assert preset.human_brain == (name not in ("body", "phantom"))


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ParameterError) as caught:
        mask_preset("foot")
    assert all(name in str(caught.value) for name in PRESETS)
