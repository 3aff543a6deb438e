"""Who imports whom, and what a mere question costs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import qsmxt
from qsmxt.registry.catalogue import catalogue

PACKAGE = Path(qsmxt.__file__).parent
HEAVY = ("numpy", "scipy", "numba", "nipype", "bids", "nibabel", "pandas", "matplotlib", "niworkflows", "ants")


def test_arrows_point_downwards():
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=PACKAGE.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]


@pytest.mark.parametrize("module", ["run", "step"])
@pytest.mark.parametrize("question", [["--help"], ["--version"]])
def test_questions_import_nothing_heavy(module, question):
    code = (
        "import sys, json\n"
        f"from qsmxt.cli.{module} import main\n"
        f"try:\n    main({question!r})\nexcept SystemExit:\n    pass\n"
        f"sys.stderr.write(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(result.stderr) == []
    assert result.stdout.strip()


def test_help_of_the_methods_imports_nothing_heavy():
    code = (
        "import sys, json\n"
        "from qsmxt.cli.run import main\n"
        "try:\n    main(['--help-methods'])\nexcept SystemExit:\n    pass\n"
        f"sys.stderr.write(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(result.stderr) == []


def test_libraries_leave_out_what_is_not_used_and_find_it_when_it_is():
    code = (
        "import sys, json\n"
        "from qsmxt.lean import import_libraries\n"
        "import_libraries()\n"
        "before = [m for m in ('nibabel', 'nipype', 'pydicom', 'scipy.io', 'scipy.sparse') if m in sys.modules]\n"
        "import pydicom, scipy.io, nipype.utils.filemanip\n"
        "assert nipype.utils.filemanip.sio.loadmat is scipy.io.loadmat and pydicom.dcmread\n"
        "sys.stdout.write(json.dumps(before))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == ["nibabel", "nipype"]


def test_what_was_postponed_is_there_when_it_is_asked_for():
    code = (
        "import sys, json\n"
        "from qsmxt.lean import DISCOVERY, POSTPONED, STEPS, import_libraries\n"
        "import_libraries(*STEPS, *DISCOVERY)\n"
        "before = [m for m in (*POSTPONED, 'prov', 'networkx.algorithms', 'numba.np.linalg') if m in sys.modules]\n"
        "import networkx, numpy, scipy.fft\n"
        "from nipype.utils import provenance\n"
        "assert abs(scipy.fft.fhtoffset(0.1, 0.2)) < 0.05\n"
        "graph = networkx.DiGraph([(1, 2), (2, 3)])\n"
        "assert list(networkx.topological_sort(graph)) == [1, 2, 3] == list(networkx.dfs_preorder(graph, 1))\n"
        "assert networkx.has_path(graph, 1, 3) and networkx.algorithms.dag.descendants(graph, 2) == {3}\n"
        "assert not hasattr(networkx, 'no_such_name')\n"
        "numpy.testing.assert_equal(provenance.nipype_ns['pickle'].localpart, 'pickle')\n"
        "sys.stdout.write(json.dumps(before))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == []


def test_the_program_writes_pages_without_the_compiler_that_its_workers_need():
    code = (
        "import sys, json\n"
        "from qsmxt.lean import DISCOVERY, import_libraries\n"
        "import_libraries(*DISCOVERY)\n"
        "import qsmxt.reports.assemble, qsmxt.workflows.dataset, qsmxt.workflows.participants\n"
        "sys.stdout.write(json.dumps([m for m in ('numba', 'scipy.fft') if m in sys.modules]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == []


#: Keys that are also ordinary words or names of something else; only ``stage.key`` is looked for.
ORDINARY_WORDS = {
    "value", "open", "close", "fill", "largest", "smooth", "trim", "erode", "dilate", "quality", "robust", "none",
    "snr", "percentile", "gaussian", "linear", "nonlinear", "sum", "mean", "median", "weighted", "homogeneity",
    "laplacian", "romeo", "bet", "csf", "region", "whole", "swi", "r2star", "t2star",
}  # fmt: skip


def _literals(path: Path) -> list[tuple[int, str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


#: Tables of what the literature recommends; they name methods as presets do.
RECOMMENDATIONS = ("reports/consensus.py",)


def test_a_method_is_named_only_at_home_in_its_roster_and_in_presets():
    homes: dict[str, set[str]] = {}
    for stage, methods in catalogue().items():
        for key in methods:
            homes.setdefault(f"{stage}.{key}", set()).add(stage)
            if key not in ORDINARY_WORDS:
                homes.setdefault(key, set()).add(stage)
    named = []
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        if relative.parts[0] == "phantom" or relative.as_posix() in RECOMMENDATIONS:
            continue
        stage = relative.parts[1] if relative.parts[0] == "algorithms" and len(relative.parts) > 2 else ""
        found = [(line, text) for line, text in _literals(path) if text in homes and stage not in homes[text]]
        named += [f"{relative}:{line} {text}" for line, text in found]
    assert not named


def test_gamma_is_spelled_once():
    spelled = [path.name for path in PACKAGE.rglob("*.py") if "42.57" in path.read_text(encoding="utf-8")]
    assert spelled == ["constants.py"]


def test_only_the_command_line_parses_arguments_and_exits():
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] in ("cli", "__main__.py", "phantom", "convert"):
            continue
        text = path.read_text(encoding="utf-8")
        assert "import argparse" not in text, path
        assert "sys.exit" not in text, path
