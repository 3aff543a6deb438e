"""Kernels compiled ahead are those that the nodes need, and nodes wait for them."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from qsmxt.algorithms import kernel_cache
from qsmxt.bids.units import EchoFiles, ProcessingUnit
from qsmxt.interfaces.base import wait_for
from qsmxt.workflows.compiling import compiled_ahead, remember
from qsmxt.workflows.plan import Group, Step
from qsmxt.workflows.resources import Resources

UNIT = ProcessingUnit({"subject": "1"}, echoes=tuple(EchoFiles(time) for time in (0.01, 0.02)))
NOTHING = Group("field", "qsm", ())
TWO = Resources(2, 4.0)

EVERYTHING = """
import sys
import numba
from numba.core.registry import CPUDispatcher
from qsmxt import config
from qsmxt.algorithms.masking.build import build_mask
from qsmxt.algorithms.quality import phase_quality
from qsmxt.bids.units import EchoFiles, ProcessingUnit
from qsmxt.phantom.head import HeadSettings, simulate
from qsmxt.registry.methods import lookup
from qsmxt.workflows.compiling import compile_part, parts_of
from qsmxt.workflows.plan import plan_unit

def signatures():
    modules = [module for name, module in sys.modules.items() if name.startswith("qsmxt.")]
    values = [value for module in modules for value in vars(module).values() if isinstance(value, CPUDispatcher)]
    found = {id(value): value for value in values}
    return {(f.__module__, f.__name__, str(one)) for f in found.values() for one in f.signatures}

settings = config.load()
unit = ProcessingUnit({"subject": "1"}, echoes=tuple(EchoFiles(t) for t in (0.004, 0.012, 0.020, 0.028)))
groups = plan_unit(unit, settings).groups
for part in parts_of(groups, unit).values():
    compile_part(part)
head = simulate(HeadSettings(voxel_size=(4.0, 4.0, 4.0)))
arrays = {"wrapped_phase": head.wrapped_phase, "magnitude": head.magnitude, "echo_times": head.echo_times,
          "field_strength": head.field_strength}
arrays["phase_quality"] = phase_quality(head.wrapped_phase, None, head.echo_times, head.grid)
before = signatures()
for step in (step for group in groups for step in group.steps):
    if step.name == "masking.sections":
        masks = build_mask(step.parameters["sections"], arrays, head.grid, combine=step.parameters["combine"],
                           human_brain=step.parameters["human_brain"])
        arrays |= {"mask": masks.mask, "reliable_mask": masks.reliable_mask}
    else:
        arrays |= lookup(*step.name.split(".")).run(arrays, head.grid, step.parameters)
print(len(before), sorted(signatures() - before))
"""


def test_the_default_methods_need_no_kernel_that_was_not_compiled_ahead() -> None:
    done = subprocess.run([sys.executable, "-c", EVERYTHING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    number, _, missing = done.stdout.strip().partition(" ")
    assert int(number) > 40
    assert missing == "[]"


def test_a_node_waits_while_its_kernels_are_compiled_and_no_longer(tmp_path: Path) -> None:
    lock = tmp_path / "kernels"
    ahead = subprocess.Popen(
        [sys.executable, "-c", f"import fcntl, sys; f = open({str(lock)!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
         "print('locked', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert ahead.stdout is not None
    ahead.stdout.readline()
    waiting = threading.Thread(target=wait_for, args=(str(lock),))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    ahead.kill()
    ahead.communicate()
    waiting.join(60)
    assert not waiting.is_alive()
    wait_for(str(tmp_path / "nothing is compiled"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(folder))
    return folder


def test_what_was_compiled_is_remembered_beside_the_kernels(cache: Path, tmp_path: Path) -> None:
    with compiled_ahead([NOTHING], UNIT, "1+a", tmp_path, TWO) as locks:
        assert list(locks) == ["field"]
        wait_for(str(locks["field"]))
    assert [path.name.partition("-")[0] for path in cache.iterdir() if path.is_file()] == ["compiled"]
    with compiled_ahead([NOTHING], UNIT, "1+a", tmp_path, TWO) as locks:
        assert locks == {}


def test_what_ran_in_one_process_is_not_compiled_ahead_later(cache: Path, tmp_path: Path) -> None:
    remember([NOTHING], UNIT, "1+a")
    with compiled_ahead([NOTHING], UNIT, "1+a", tmp_path, TWO) as locks:
        assert locks == {}
    with compiled_ahead([NOTHING], UNIT, "1+b", tmp_path, TWO) as locks:
        assert list(locks) == ["field"]


def test_other_code_is_compiled_again(cache: Path, tmp_path: Path) -> None:
    for code in ("1+a", "1+b"):
        with compiled_ahead([NOTHING], UNIT, code, tmp_path, TWO) as locks:
            wait_for(str(locks["field"]))
    assert len(list(cache.glob("compiled-*"))) == 2


@pytest.mark.parametrize("resources", [Resources(1, 4.0), Resources(4, 4.0, plugin="SLURM")])
def test_nothing_is_compiled_ahead_where_nothing_runs_side_by_side(
    resources: Resources, cache: Path, tmp_path: Path
) -> None:
    with compiled_ahead([NOTHING], UNIT, "1+a", tmp_path, resources) as locks:
        assert locks == {}
    assert not list(cache.iterdir())


def test_a_group_that_cannot_be_compiled_ahead_lets_its_nodes_go_on(cache: Path, tmp_path: Path) -> None:
    step = Step("referencing.unheard_of", {}, ("chi",), (), ("chi",))
    with compiled_ahead([Group("chi", "qsm", (step,))], UNIT, "1+a", tmp_path, TWO) as locks:
        wait_for(str(locks["chi"]))
    assert not list(cache.glob("compiled-*"))
    assert kernel_cache.chosen() == cache


def test_a_folder_that_cannot_be_written_is_no_error_here(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("no folder")
    with compiled_ahead([NOTHING], UNIT, "1+a", tmp_path, TWO) as locks:
        wait_for(str(locks["field"]))
