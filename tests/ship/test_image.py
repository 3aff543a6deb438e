"""The image built and run for real: any user, read-only root, no network, both levels; by podman, and unpacked.

Apptainer is not in Debian; Charliecloud runs the unpacked image as it would: an unprivileged user, the root read-only,
the environment and the start of the definition file.

Building takes some minutes and a base image in the local store: the one that the Dockerfile names, or another with
Python that ``QSMXT_BASE_IMAGE`` names. ``QSMXT_IMAGE`` names an image that was built already.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import qsmxt

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("buildah", "podman", "runc")

#: Bytes of the image.
LARGEST = 1.5e9


def usual_base() -> str:
    """The image that the Dockerfile builds upon."""
    found = re.search(r"^ARG BASE_IMAGE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def base_image() -> str:
    """The base image asked for, else the usual one if it is there, else nothing."""
    if asked := os.environ.get("QSMXT_BASE_IMAGE"):
        return asked
    command = ["podman", "--storage-driver", "overlay", "image", "exists", usual_base()]
    return usual_base() if subprocess.run(command, capture_output=True, check=False).returncode == 0 else ""


def missing() -> str:
    """Why no image can be tried here, or nothing."""
    absent = [name for name in TOOLS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if absent:
        return f"{', '.join(absent)} not found (Debian: apt-get install buildah podman runc)"
    if os.environ.get("QSMXT_IMAGE") or base_image():
        return ""
    return (
        f"{usual_base()} is not in the local store (podman pull), and neither QSMXT_IMAGE nor QSMXT_BASE_IMAGE is set"
    )


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
    base = base_image()
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


@pytest.fixture(scope="module")
def unpacked(image: str) -> Iterator[Path]:
    """Folder with the image's files, which anybody can reach."""
    podman = ["podman", "--storage-driver", "overlay"]
    name = run(*podman, "create", image).strip()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        root.mkdir()
        root.parent.chmod(0o755)
        try:
            run("sh", "-c", f"{' '.join(podman)} export {name} | tar -x -C {root}")
        finally:
            run(*podman, "rm", name)
        yield root


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
    assert sorted(path.name for path in out.rglob("*_Chimap.nii.gz")) == [
        "sub-01_Chimap.nii.gz",
        "sub-02_Chimap.nii.gz",
    ]
    assert {path.stat().st_uid for path in out.rglob("*")} == {4242}
    program("/bound/demo/derivatives", "--ignoreWarnings", entry="bids-validator-deno")


@pytest.mark.skipif(
    shutil.which("ch-run") is None or os.geteuid() != 0,
    reason="needs Charliecloud (Debian: apt-get install charliecloud) and root, to become another user",
)
def test_unpacked_image_runs_as_the_definition_file_says(unpacked: Path) -> None:
    definition = (ROOT / "singularity" / "qsmxt.def").read_text(encoding="utf-8")
    environment = unpacked.parent / "environment"
    environment.write_text("\n".join(re.findall(r"^ +export (\w+=.*)$", definition, re.MULTILINE)) + "\n")
    (start,) = re.findall(r"%runscript\n +exec (\S+) ", definition)
    bound = unpacked.parent / "bound"
    bound.mkdir()
    bound.chmod(0o777)

    def call(*words: str) -> str:
        user = ["setpriv", "--reuid", "4242", "--regid", "4242", "--clear-groups", "env", "-i", "USER=somebody"]
        jail = ["ch-run", f"--set-env={environment}", "-b", f"{bound}:/mnt", str(unpacked), "--"]
        return run("unshare", "--net", *user, "HOME=/nowhere", "PATH=/usr/bin", *jail, *words)

    assert call(start, "--version") == f"qsmxt {qsmxt.__version__}\n"
    assert "refused" in call("sh", "-c", "touch /opt/qsmxt/x || echo refused")
    call(f"{start}-demo", "/mnt/demo", "--subjects", "1", "--voxel-size", "4", "--nprocs", "1")
    call(start, "/mnt/demo/bids", "/mnt/demo/derivatives", "group", "-w", "/mnt/work", "--no-group-template")
    out = bound / "demo" / "derivatives"
    assert [path.name for path in out.rglob("*_Chimap.nii.gz")] == ["sub-01_Chimap.nii.gz"]
    assert {path.stat().st_uid for path in out.rglob("*")} == {4242}
