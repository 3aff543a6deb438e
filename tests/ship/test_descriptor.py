"""boutiques.json says what the command line can do, no more and no less."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import qsmxt
from qsmxt.cli import descriptor
from qsmxt.cli.arguments import build_parser

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return json.loads((ROOT / "boutiques.json").read_text(encoding="utf-8"))


def bosh(*arguments: str) -> str:
    pytest.importorskip("boutiques", reason="boutiques is not installed (extra: test)")
    done = subprocess.run(
        [sys.executable, "-c", "from boutiques.bosh import bosh; import sys; bosh(sys.argv[1:])", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def value_for(entry: dict[str, Any]) -> Any:
    """A value that the descriptor allows."""
    if entry["type"] == "Flag":
        return True
    if "value-choices" in entry:
        value: Any = entry["value-choices"][-1]
    elif entry["type"] == "Number":
        low, high = entry.get("minimum"), entry.get("maximum")
        value = low + 1 if high is None and low is not None else (low + high) / 2 if low is not None else 1
        value = int(value) if entry.get("integer") else value
    elif 'or "auto"' in entry["description"]:
        value = "auto"
    else:
        value = {"mem": "8G", "derivatives": str(ROOT)}.get(entry["id"], "1")
    return (
        [value] * int(entry.get("min-list-entries", 2 if entry["id"] == "mask" else 1)) if entry.get("list") else value
    )


def simulate(invocation: dict[str, Any], folder: Path) -> list[str]:
    """The words that follow ``qsmxt`` on the command line that bosh makes."""
    path = folder / "invocation.json"
    path.write_text(json.dumps(invocation), encoding="utf-8")
    printed = bosh("exec", "simulate", str(ROOT / "boutiques.json"), "-i", str(path))
    line = next(line for line in printed.splitlines() if "qsmxt" in line and "mkdir" in line)
    return shlex.split(line.split("; qsmxt ", 1)[1])


def test_the_file_is_what_the_parser_gives() -> None:
    assert descriptor.main([]) == 0, "run: python -m qsmxt.cli.descriptor --write"


def test_version(stored: dict[str, Any]) -> None:
    assert stored["tool-version"] == qsmxt.__version__
    assert stored["custom"]["BIDSApplicationVersion"] == qsmxt.__version__
    assert stored["container-image"]["image"].endswith(":" + qsmxt.__version__)


def test_every_flag_is_an_input_and_every_input_a_flag(stored: dict[str, Any]) -> None:
    parser = build_parser()
    accepted = {text for action in parser._actions for text in action.option_strings}
    described = [entry["command-line-flag"] for entry in stored["inputs"] if "command-line-flag" in entry]
    assert set(described) <= accepted
    covered = {text for action in parser._actions if set(described) & set(action.option_strings)
               for text in action.option_strings}  # fmt: skip
    assert accepted - covered == {"-h", "--help", "--version", "--help-methods", "--help_methods"}
    assert len(described) == len(set(described))
    identifiers = [entry["id"] for entry in stored["inputs"]]
    assert len(identifiers) == len(set(identifiers))


def test_every_value_key_is_on_the_command_line_once(stored: dict[str, Any]) -> None:
    words = stored["command-line"].split("; qsmxt ")[1].split()
    assert len(words) == len(set(words))
    assert set(words) == {entry["value-key"] for entry in stored["inputs"]}


def test_bosh_refuses_what_is_wrong(tmp_path: Path, stored: dict[str, Any]) -> None:
    wrong = {**stored, "output-files": [{**stored["output-files"][0], "path-template": "elsewhere"}]}
    (tmp_path / "wrong.json").write_text(json.dumps(wrong), encoding="utf-8")
    with pytest.raises(AssertionError, match="OUTPUT_DIR is not represented"):
        bosh("validate", "--bids", str(tmp_path / "wrong.json"))


def test_bosh_accepts_it() -> None:
    bosh("validate", str(ROOT / "boutiques.json"))
    assert "BIDS validation OK" in bosh("validate", "--bids", str(ROOT / "boutiques.json"))


def test_an_invocation_of_a_platform_is_understood(tmp_path: Path) -> None:
    words = simulate(
        {"bids_dir": "in", "output_dir": "out dir", "analysis_level": ["participant", "group"], "swi": True,
         "participant_label": ["01", "02"], "inversion": "rts", "inversion_rts_threshold": 0.2, "phase_sign": "-",
         "mask": ["magnitude:first,bet", "phase-quality,otsu"]}, tmp_path,
    )  # fmt: skip
    namespace = build_parser().parse_intermixed_args(words)
    assert namespace.output_dir == Path("out dir")
    assert namespace.analysis_level == ["participant", "group"]
    assert namespace.participant_label == ["01", "02"]
    assert namespace.flags == {
        "outputs": {"swi": True},
        "inversion": {"method": "rts", "rts": {"threshold": 0.2}},
        "acquisition": {"phase_sign": "-"},
        "masking": {"sections": ("magnitude:first,bet", "phase-quality,otsu")},
    }


def test_all_inputs_at_once_are_understood(stored: dict[str, Any], tmp_path: Path) -> None:
    invocation = {e["id"]: value_for(e) for e in stored["inputs"] if e["id"] != "output_dir_present"}
    namespace = build_parser().parse_intermixed_args(simulate(invocation, tmp_path))
    parsed = sum(len(table) for name, table in namespace.flags.items())
    assert parsed > 40
    assert namespace.work_dir == Path("1")


def test_a_value_outside_the_bounds_is_refused_by_bosh(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="inversion_rts_threshold"):
        simulate(
            {"bids_dir": "in", "output_dir": "out", "analysis_level": ["participant"], "inversion_rts_threshold": 0.9},
            tmp_path,
        )


def test_exit_codes_are_those_of_the_errors(stored: dict[str, Any]) -> None:
    codes = [entry["code"] for entry in stored["error-codes"]]
    assert codes == sorted(set(codes))
    assert {1, 2, 16, 18, 65, 66} <= set(codes)


def test_out_of_date_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptor, "DESCRIPTOR_FILE", tmp_path / "boutiques.json")
    assert descriptor.main([]) == 1
    assert descriptor.main(["--write"]) == 0
    assert descriptor.main([]) == 0
