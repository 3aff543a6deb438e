"""The configuration of CircleCI refers only to what it defines and what the repository holds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / ".circleci" / "config.yml").read_text(encoding="utf-8"))


def job_calls(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    calls: dict[str, dict[str, Any]] = {}
    for workflow in config["workflows"].values():
        for entry in workflow["jobs"]:
            calls.update({entry: {}} if isinstance(entry, str) else entry)
    return calls


def commands(job: dict[str, Any]) -> str:
    runs = [step["run"] for step in job["steps"] if isinstance(step, dict) and "run" in step]
    return "\n".join(run if isinstance(run, str) else run["command"] for run in runs)


def test_every_job_runs_and_every_reference_exists(config: dict[str, Any]) -> None:
    assert config["version"] == 2.1
    calls = job_calls(config)
    assert set(calls) == set(config["jobs"])
    for call in calls.values():
        assert set(call.get("requires", [])) <= set(config["jobs"])


def test_the_published_schema_accepts_it() -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed (extra: test)")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.circle-ci"]
    done = subprocess.run([*command, str(ROOT / ".circleci/config.yml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_executors_and_parameters(config: dict[str, Any]) -> None:
    for name, job in config["jobs"].items():
        executor = job["executor"]
        executor_name = executor if isinstance(executor, str) else executor["name"]
        assert executor_name in config["executors"]
        given = set() if isinstance(executor, str) else set(executor) - {"name"}
        assert given <= set(config["executors"][executor_name].get("parameters", {}))
        used = set(re.findall(r"<< parameters\.(\w+) >>", str(job)))
        assert used == set(job.get("parameters", {})), name
        matrix = job_calls(config)[name].get("matrix", {}).get("parameters", {})
        assert set(matrix) == set(job.get("parameters", {}))


def test_python_versions_are_those_of_the_package(config: dict[str, Any]) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = set(re.findall(r"Python :: (3\.\d+)", text))
    assert set(job_calls(config)["test"]["matrix"]["parameters"]["python"]) == declared


def test_a_tag_runs_everything_before_it_deploys(config: dict[str, Any]) -> None:
    calls = job_calls(config)
    deploy = calls.pop("deploy")
    assert set(deploy["requires"]) == set(calls)
    assert deploy["filters"]["branches"]["ignore"] == "/.*/"
    only = deploy["filters"]["tags"]["only"].strip("/")
    assert re.search(only, "v10.0.0") and not re.search(only, "v10.0.0-rc1")
    for name, call in calls.items():
        assert call["filters"]["tags"]["only"] == "/.*/", f"{name} would not run for a tag"


def test_files_that_commands_name_exist(config: dict[str, Any]) -> None:
    text = "\n".join(commands(job) for job in config["jobs"].values())
    for name in ("constraints.txt", ".ci/run", "boutiques.json", "Dockerfile", "qsmxt/__init__.py"):
        assert name in text
        assert (ROOT / name).exists()


def test_the_image_is_tried_at_both_levels_without_network_and_rights(config: dict[str, Any]) -> None:
    smoke = commands(config["jobs"]["container"])
    for word in ("--network none", "--read-only", "--user 4242", "qsmxt-demo", " group "):
        assert word in smoke
