"""Everything that is named is described, everything made is traced back to the images of the scanner."""

from __future__ import annotations

import hashlib
import json

import pytest

from qsmxt.bids.provenance import Run, activity_ids, makers, unit_label, write_provenance
from qsmxt.registry.catalogue import find

SOURCES = ["bids:raw:sub-1/anat/sub-1_part-phase_T2starw.nii.gz"]
MAP, FIELD = "sub-1/anat/sub-1_Chimap.nii.gz", "sub-1/anat/sub-1_desc-totalfield_T2starw.nii.gz"


def _step(method, consumes, produces, optional=(), **parameters):
    return {"method": method, "parameters": parameters, "consumes": list(consumes), "produces": list(produces),
            "optional": list(optional)}  # fmt: skip


STEPS = [
    _step("field.joint_fit", ["wrapped_phase"], ["total_field", "field_noise"], ["magnitude"]),
    _step("inversion.tkd", ["total_field"], ["chi"], threshold=0.2),
    _step("referencing.mean", ["chi"], ["chi"]),
]


def _record(steps=STEPS, output="qsm", **changes):
    files = {"chi": MAP, "total_field": FIELD}
    return {"unit": "sub-1_T2starw", "version": "1", "output": output, "files": files, "steps": steps,
            "sources": SOURCES, **changes}  # fmt: skip


def _objects(out):
    found = {}
    for path in sorted((out / "prov/prov-qsmxt").glob("*.json")):
        for kind, objects in json.loads(path.read_text()).items():
            assert kind in ("Activities", "ProvEntities", "Software", "Environments")
            found |= {entry["Id"]: (kind, entry) for entry in objects}
    return found


def test_every_name_leads_back_to_the_scanner(tmp_path):
    write_provenance(tmp_path, "sub-1_T2starw", [_record()], Run("qsmxt a b", "2026-01-01T00:00:00", "n"))
    objects = _objects(tmp_path)
    made = makers("sub-1_T2starw", STEPS, "1")
    by_file = {f"bids::{MAP}": made["chi"], f"bids::{FIELD}": made["total_field"]}
    seen, open_names = set(), [made["chi"]]
    while open_names:
        name = open_names.pop()
        seen.add(name)
        if name in by_file:
            open_names.append(by_file[name])
            continue
        kind, entry = objects[name]
        if kind == "Activities":
            open_names += [*entry["Used"], *entry["AssociatedWith"]]
        elif "GeneratedBy" in entry:
            open_names.append(entry["GeneratedBy"])
    assert {objects[name][1]["Label"] for name in seen if name in objects} >= {
        f"inversion: {find('inversion', 'tkd').title}", "QSMxT", SOURCES[0].rpartition("/")[2],
    }  # fmt: skip
    (run,) = [entry for kind, entry in objects.values() if "Command" in entry]
    assert run["Command"] == "qsmxt a b" and run["Used"][0] == SOURCES[0]


def test_only_the_last_maker_of_a_file_is_said_to_have_made_it(tmp_path):
    write_provenance(tmp_path, "sub-1_T2starw", [_record()])
    objects = _objects(tmp_path)
    _, inversion, referencing = activity_ids("sub-1_T2starw", STEPS, "1")
    assert makers("sub-1_T2starw", STEPS, "1")["chi"] == referencing
    (used, _) = objects[referencing][1]["Used"]
    assert used.startswith("bids::prov#provEntity-chi-") and objects[used][1]["GeneratedBy"] == inversion
    assert objects[inversion][1]["Parameters"] == {"threshold": 0.2}
    assert objects[inversion][1]["Used"][0] == f"bids::{FIELD}"


def test_outputs_share_the_steps_they_share_and_no_others():
    more = [STEPS[0], _step("swi.clearswi", ["wrapped_phase"], ["swi"]), *STEPS[1:]]
    first, second = (activity_ids("sub-1_T2starw", steps, "1") for steps in (STEPS, more))
    assert [second[0], *second[2:]] == first
    changed = [STEPS[0], {**STEPS[1], "parameters": {"threshold": 0.3}}, STEPS[2]]
    other = activity_ids("sub-1_T2starw", changed, "1")
    assert other[0] == first[0] and not set(other[1:]) & set(first)
    assert not set(activity_ids("sub-1_T2starw", STEPS, "2")) & set(first)
    assert not set(activity_ids("sub-2_T2starw", STEPS, "1")) & set(first)


def test_outputs_without_steps_used_what_their_sidecars_say(tmp_path):
    sidecar = tmp_path / MAP.replace(".nii.gz", ".json")
    sidecar.parent.mkdir(parents=True)
    sidecar.write_text(json.dumps({"Sources": [*SOURCES, "bids::x.nii"]}))
    record = _record([], "segmentation", parameters={"method": "atlas"})
    write_provenance(tmp_path, "sub-1_T2starw", [record])
    objects = _objects(tmp_path)
    (name,) = [name for name in objects if "prov#segmentation-" in name]
    assert objects[name][1]["Used"][:2] == [*SOURCES, "bids::x.nii"]
    assert objects[f"bids::{MAP}"][1]["GeneratedBy"] == name and objects[SOURCES[0]][0] == "ProvEntities"


def test_sources_have_digests_and_so_have_files_without_a_sidecar(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    source = raw / SOURCES[0].removeprefix("bids:raw:")
    table = out / "group_long_stats.tsv"
    for path, content in ((source, b"phase"), (table, b"x\n1\n"), (out / MAP, b"map")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (out / MAP.replace(".nii.gz", ".json")).write_text(json.dumps({"Digest": {"sha256": "told"}}))
    record = _record([], "tables", files={"0": table.name, "1": MAP, "2": "gone.tsv"}, used=[*SOURCES, "bids::a.tsv"])
    write_provenance(out, "group", [record], roots={"raw": raw})
    entities = {name: entry for name, (kind, entry) in _objects(out).items() if kind == "ProvEntities"}
    digests = {name: entry.get("Digest") for name, entry in entities.items()}
    expected = {SOURCES[0]: b"phase", f"bids::{table.name}": b"x\n1\n"}
    assert {name: found["sha256"] for name, found in digests.items() if found} == {
        name: hashlib.sha256(content).hexdigest() for name, content in expected.items()
    }
    assert set(digests) == {*expected, f"bids::{MAP}", "bids::gone.tsv"}, "maps have theirs in their sidecars"
    (activity,) = [entry for _, entry in _objects(out).values() if entry["Label"] == "tables"]
    assert activity["Used"][:2] == [*SOURCES, "bids::a.tsv"]


def test_names_that_look_alike_as_labels_are_told_apart():
    labels = {unit_label(name) for name in ("sub-1_acq-xRun1_MEGRE", "sub-1_acq-x_run-1_MEGRE")}
    assert len(labels) == 2 and all(label.isalnum() for label in labels)


@pytest.mark.parametrize("name", ["provenance.tsv", "provenance.json"])
def test_table_of_provenance_explains_the_label(tmp_path, name):
    write_provenance(tmp_path, "sub-1_T2starw", [_record()])
    text = (tmp_path / "prov" / name).read_text()
    assert "prov-qsmxt\t" in text if name.endswith("tsv") else set(json.loads(text)) == {"description"}


def test_a_source_has_the_digest_of_what_was_read_even_if_the_file_has_changed_since(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    file = raw / SOURCES[0].rpartition(":")[2]
    file.parent.mkdir(parents=True)
    file.write_bytes(b"later")
    for record, digest in (
        (_record(digests={SOURCES[0]: "ab"}), "ab"),
        (_record(), hashlib.sha256(b"later").hexdigest()),
    ):
        write_provenance(out, "sub-1_T2starw", [record], roots={"raw": raw})
        assert _objects(out)[SOURCES[0]][1]["Digest"] == {"sha256": digest}
