"""The image built and run for real: any user, read-only root, no network, both levels.

Building takes ten minutes and a base image, so it is asked for: ``QSMXT_BASE_IMAGE`` names an image with Python in the
local store (it is built upon), or ``QSMXT_IMAGE`` one that was built already.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import qsmxt

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("buildah", "podman", "runc")

#: Bytes of the image.
LARGEST = 1.5e9


def missing() -> str:
    """Why no image can be tried here, or nothing."""
    absent = [name for name in TOOLS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if absent:
        return f"{', '.join(absent)} not found (Debian: apt-get install buildah podman runc)"
    if os.environ.get("QSMXT_IMAGE") or os.environ.get("QSMXT_BASE_IMAGE"):
        return ""
    return "neither QSMXT_IMAGE nor QSMXT_BASE_IMAGE is set"


pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


def run(*command: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, (command, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout


@pytest.fixture(scope="module")
def image() -> str:
    if given := os.environ.get("QSMXT_IMAGE"):
        return given
    base = os.environ["QSMXT_BASE_IMAGE"]
    certificates = Path("/etc/ssl/certs")
    more = ["-v", f"{certificates}:{certificates}:ro"] if certificates.is_dir() else []
    run("buildah", "build", "--isolation", "chroot", "--storage-driver", "overlay", "--layers", *more,
        "--build-arg", f"BASE_IMAGE={base}", "--build-arg", "TEMPLATE=", "--build-arg", f"VERSION={qsmxt.__version__}",
        "-t", "localhost/qsmxt:test", ".")  # fmt: skip
    return "localhost/qsmxt:test"


@pytest.fixture(scope="module")
def program(image: str, tmp_path_factory: pytest.TempPathFactory):
    """Runs the image in a jail; ``entry`` takes the place of the entry point."""
    folder = tmp_path_factory.mktemp("bound")
    folder.chmod(0o777)
    jail = [
        "podman", "--storage-driver", "overlay", "--runtime", "runc", "--cgroup-manager", "cgroupfs", "run", "--rm",
        "--network", "none", "--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp", "--user", "4242:4242",
        "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "-v", f"{folder}:/bound",
    ]  # fmt: skip

    def call(*words: str, entry: str | None = None) -> str:
        return run(*jail, *(["--entrypoint", entry] if entry else []), image, *words)

    call.folder = folder  # type: ignore[attr-defined]
    return call


def test_size(image: str) -> None:
    facts = json.loads(run("podman", "--storage-driver", "overlay", "image", "inspect", image))[0]
    assert facts["Size"] < LARGEST
    assert facts["Labels"]["org.opencontainers.image.version"] == qsmxt.__version__
    assert facts["Config"]["Entrypoint"] == ["qsmxt"] and not facts["Config"].get("Cmd")


def test_version(program) -> None:
    assert program("--version") == f"qsmxt {qsmxt.__version__}\n"


def test_both_levels_without_network_rights_and_compiling(program) -> None:
    said = program(
        "-c",
        "NUMBA_DEBUG_CACHE=1 qsmxt-demo /bound/demo --subjects 2 --voxel-size 4 --nprocs 2 --swi --r2star"
        " > /tmp/said 2>&1; code=$?; grep -v 'index loaded\\|data loaded' /tmp/said; exit $code",
        entry="/bin/sh",
    )  # fmt: skip
    assert "2 done, 0 skipped, 0 failed" in said
    assert "data saved" not in said, "kernels were compiled when the image was built"
    program("/bound/demo/bids", "/bound/demo/derivatives", "group", "-w", "/bound/work", "--no-group-template")
    out = program.folder / "demo" / "derivatives"
    assert sorted(path.name for path in out.rglob("*_Chimap.nii.gz")) == ["sub-1_Chimap.nii.gz", "sub-2_Chimap.nii.gz"]
    assert {path.stat().st_uid for path in out.rglob("*")} == {4242}
    program("/bound/demo/derivatives", "--ignoreWarnings", entry="bids-validator-deno")
