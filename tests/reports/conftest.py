"""An output dataset with one unit, drawn and measured by the node that does so."""

from __future__ import annotations

import json
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest

from qsmxt.interfaces.state import State
from qsmxt.reports.interface import DrawFigures

SHAPE = (24, 28, 9)
EVIL = '<script>document.title = "run"</script>'


def _arrays():
    """A slab with a rim, a nucleus and a field, all closed forms."""
    x, y, z = np.indices(SHAPE)
    mask = (x - 12) ** 2 + (y - 14) ** 2 < 100
    nucleus = ((x - 12) ** 2 + (y - 14) ** 2 < 9) & (abs(z - 4) < 3)
    noise = np.random.default_rng(0).standard_normal((4, *SHAPE)).astype(np.float32)
    magnitude = np.stack([100.0 * mask + 2 * noise[0], 80.0 * mask + 2 * noise[1]]).astype(np.float32)
    chi = ((0.1 * nucleus + 0.02 * noise[2]) * mask).astype(np.float32)
    return mask, nucleus, {
        "chi": chi, "mask": mask, "local_field": (0.02 * noise[3] * mask).astype(np.float32),
    }, {
        "magnitude": magnitude, "wrapped_phase": np.angle(np.exp(0.4j * (x + y)))[None].repeat(2, 0),
        "phase_quality": np.where(mask, 0.9, 0.3), "field_noise": np.where(mask, 0.05, 0.0),
    }  # fmt: skip


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """Output folder of ``sub-1``: maps, record, labels with a table, figures, quality, a crash, evil metadata."""
    out, cwd = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("cwd")
    _, nucleus, saved, unsaved = _arrays()
    affine = np.diag([2.0, 2.0, 4.0, 1.0])
    names = {"chi": "Chimap", "mask": "desc-brain_mask", "local_field": "desc-localfield_T2starw"}
    files = {name: f"sub-1/anat/sub-1_{suffix}.nii.gz" for name, suffix in names.items()}
    (out / "sub-1/anat").mkdir(parents=True)
    for name, file in files.items():
        array = saved[name].astype(np.uint8) if name == "mask" else saved[name]
        nibabel.Nifti1Image(array, affine).to_filename(out / file)
    labels = "sub-1/anat/sub-1_atlas-A_dseg.nii.gz"
    nibabel.Nifti1Image(nucleus.astype(np.int16) * 12, affine).to_filename(out / labels)
    (out / labels).with_name("sub-1_atlas-A_dseg.tsv").write_text("index\tname\n12\tLeft-Putamen\n3\tCortex\n")
    (out / "sub-1/anat/sub-1_stats.tsv").write_text(f"map\tregion\tmedian\nchi\t{EVIL}\t0.1\nchi\tB\t-0.02\n")
    record = {
        "unit": "sub-1_MEGRE", "subject": "1", "version": "1", "echo_times": [0.005, 0.01], "field_strength": 3.0,
        "grid": {"shape": list(SHAPE), "voxel_size": [2, 2, 4], "b0_direction": [0, 0, 1]}, "files": files,
        "steps": [
            {"method": "masking.bet", "parameters": {}}, {"method": "unwrapping.laplacian", "parameters": {}},
            {"method": "inversion.tkd", "parameters": {"threshold": 0.17, "correct": False}},
        ],
        "notes": ["phase was inverted", EVIL], "statistics": {"mask": {"warnings": ["The mask has 3 pieces."]}},
    }  # fmt: skip
    logs = out / "logs/sub-1"
    logs.mkdir(parents=True)
    (logs / "sub-1_MEGRE_qsm.json").write_text(json.dumps(record))
    segmented = {**record, "steps": [], "notes": [], "statistics": {},
                 "files": {"dseg_A": labels, "stats": "sub-1/anat/sub-1_stats.tsv"}}  # fmt: skip
    (logs / "sub-1_MEGRE_segmentation.json").write_text(json.dumps(segmented))
    (logs / "crash-1.txt").write_text("Node: qsmxt.sub-1_acq-x_MEGRE.chi\nTraceback\nValueError: <b>boom</b>\n")
    (out / "logs/sub-1/resources.tsv").write_text(
        "node\twall_s\tcpu_s\tpeak_gb\nsub-1_MEGRE.chi\t12.5\t10\t0.4\nsub-1_MEGRE2.chi\t99.5\t1\t1\n"
    )
    paths = {}
    for name, array in {**saved, **unsaved}.items():
        paths[name] = str(cwd / f"{name}.npy")
        np.save(paths[name], array)
    state = State("f", record["grid"], affine.tolist(), arrays=paths)
    unit = {"entities": {"subject": "1"}, "suffix": "MEGRE", "datatype": "anat", "field_strength": 3.0,
            "echoes": [{"echo_time": 0.005, "metadata": {"PhaseEncodingDirection": "j-"}}]}  # fmt: skip
    node = DrawFigures(
        unit=json.dumps(unit), derivatives=str(out), record=str(logs / "sub-1_MEGRE_qsm.json"), state=state.to_json(),
        fingerprint="x", code="y",
    )  # fmt: skip
    node._run_interface(SimpleNamespace(cwd=str(cwd)))
    for path in (cwd / "derivatives").rglob("*.*"):
        target = out / path.relative_to(cwd / "derivatives")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return out
