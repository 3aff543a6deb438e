"""The documents say what is true: options, methods, presets, scripts."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from qsmxt import config
from qsmxt.cli import cluster, convert, demo, step, tui
from qsmxt.cli.arguments import build_parser
from qsmxt.registry.catalogue import catalogue

DOCS = Path(__file__).resolve().parents[2] / "docs"

#: First columns of tables about other versions hold options that are gone.
MIGRATION = ("coming-from-8.md", "coming-from-9.md")

#: Options of other programs that the documents mention.
FOREIGN = {
    "--rm", "--user", "--read-only", "--tmpfs", "--build-arg", "--cleanenv", "--parsable", "--array", "--dependency",
    "--write", "--partition", "--include", "--variant", "--runs",
}  # fmt: skip


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    found = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    sys.modules["docs_generate"] = module
    found.loader.exec_module(module)
    return module


def known_options() -> set[str]:
    parsers = [build_parser(), demo.build_parser(), cluster.build_parser(), tui.build_parser()]
    parsers += [step.build_parser(method) for methods in catalogue().values() for method in methods.values()]
    for action in convert.build_parser()._actions:
        if isinstance(action.choices, dict):
            parsers += action.choices.values()
    return {text for parser in parsers for action in parser._actions for text in action.option_strings}


def test_every_option_in_the_documents_exists() -> None:
    unknown = {}
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if path.name in MIGRATION:
            text = re.sub(r"^\|.*?(?<!\\)\|", "|", text, flags=re.MULTILINE)
        found = {option.rstrip("-") for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)}
        if wrong := found - known_options() - FOREIGN:
            unknown[path.name] = sorted(wrong)
    assert unknown == {}


def test_commands_in_the_documents_are_understood() -> None:
    pattern = re.compile(r"^qsmxt (?!.*[\[|])(.+?)(?:\s+#.*)?$", re.MULTILINE)
    commands = []
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL):
            commands += pattern.findall(block)
    assert len(commands) >= 6
    for command in commands:
        assert build_parser().parse_intermixed_args(shlex.split(command)).analysis_level


def test_methods_and_presets_named_in_migration_tables_exist() -> None:
    text = "\n".join((DOCS / name).read_text(encoding="utf-8") for name in MIGRATION)
    named = re.findall(r"`--(inversion|background|unwrapping|merging|referencing) (\w+)", text)
    assert len(named) >= 8
    for stage, key in named:
        assert key in (*catalogue()[stage], "none"), f"{stage} {key}"
    for preset in re.findall(r"--preset (\w+)", text):
        assert preset in config.preset_names()


def test_masks_in_the_documents_are_understood() -> None:
    from qsmxt.registry.mask_sections import parse_section

    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCS.glob("*.md"))
    sections = {found.strip('`".') for found in re.findall(r"--mask ([\w:=.,-]+)", text)}
    sections = {section for section in sections if not section.startswith("input") and ".nii" not in section}
    assert len(sections) >= 6
    for section in sections:
        parse_section(section)


def test_the_page_of_masks_names_everything_that_a_section_may_hold() -> None:
    from qsmxt.registry.mask_sections import EXTERNAL_GENERATORS, INPUTS, generators, refinements

    named = set(re.findall(r"`([\w-]+)`", (DOCS / "masks.md").read_text(encoding="utf-8")))
    options = {option for some in INPUTS.values() for option in some}
    assert {*INPUTS, *options, *generators(), *refinements(), *EXTERNAL_GENERATORS} <= named


def test_pages_of_options_and_methods_are_complete(generate: ModuleType) -> None:
    options, methods = generate.options_page(), generate.methods_page()
    for action in build_parser()._actions:
        if action.option_strings and action.help != "==SUPPRESS==":
            assert f"`{action.option_strings[-1].replace('_', '-')}`" in options
    for stage, found in catalogue().items():
        for key, method in found.items():
            assert f"({stage}-{key})=" in methods
            assert f".. autofunction:: {method.function.__module__}.{key}\n" in methods
            for declared in method.declarations:
                assert re.search(
                    rf"`(--{stage}-{key.replace('_', '-')}-)?{declared.name}`".replace("_", "[_-]"), methods
                )


def test_all_presets_are_recommended_for_something() -> None:
    text = (DOCS / "presets.md").read_text(encoding="utf-8")
    assert {name for name in config.preset_names() if f"`{name}`" in text} == set(config.preset_names())


@pytest.mark.parametrize("name", ["slurm-participants.sh", "slurm-group.sh"])
def test_scripts_are_bash(name: str) -> None:
    subprocess.run(["bash", "-n", str(DOCS / name)], check=True)


def run_script(name: str, folder: Path, *arguments: str, task: str = "2") -> list[str]:
    """The words that the script hands to qsmxt."""
    (folder / "qsmxt").write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > {folder}/words\n')
    (folder / "qsmxt").chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": task, "SLURM_CPUS_PER_TASK": "3",
                   "TMPDIR": str(folder)}  # fmt: skip
    subprocess.run(["bash", str(DOCS / name), *arguments], check=True, env=environment)
    return (folder / "words").read_text().splitlines()


def test_a_task_of_the_array_processes_its_participant(tmp_path: Path) -> None:
    (tmp_path / "subjects.txt").write_text("sub-01\nsub-02\n")
    words = run_script("slurm-participants.sh", tmp_path, "in dir", "out", str(tmp_path / "subjects.txt"))
    namespace = build_parser().parse_intermixed_args(words)
    assert (namespace.bids_dir, namespace.participant_label) == (Path("in dir"), ["sub-02"])
    assert namespace.flags == {"execution": {"nprocs": 3}}
    assert not namespace.work_dir.exists(), "the work folder is removed"
    with pytest.raises(subprocess.CalledProcessError):
        run_script("slurm-participants.sh", tmp_path, "in", "out", str(tmp_path / "subjects.txt"), task="3")


def test_the_group_job(tmp_path: Path) -> None:
    namespace = build_parser().parse_intermixed_args(run_script("slurm-group.sh", tmp_path, "in", "out"))
    assert namespace.analysis_level == ["group"]


def test_documents_build_without_warnings(tmp_path: Path) -> None:
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package, reason=f"{package} is not installed (extra: docs)")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "dummy", str(DOCS), str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
