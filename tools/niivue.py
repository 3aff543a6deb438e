"""Vendor niivue, the library of the slice viewer of reports: ``python tools/niivue.py [VERSION]``.

Asks npm for the package (default: the newest version) and its dependencies, and writes into ``qsmxt/data/viewer``

- ``niivue.js.gz``: the library with all it needs in one file, compressed,
- ``niivue.json``: name, version, licence, and SHA-256 of that file as it is once uncompressed,
- ``niivue.THIRD-PARTY``: licences of the packages that are bundled in it.

``niivue.LICENSE`` is kept by hand, as the package does not carry its licence.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "@niivue/niivue"
BUNDLE = "dist/niivue.umd.js"
TARGET = Path(__file__).resolve().parents[1] / "qsmxt" / "data" / "viewer"


def main(version: str = "latest") -> None:
    """Fetch and write."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", f"{PACKAGE}@{version}"],
            cwd=folder, check=True,
        )  # fmt: skip
        modules = Path(folder) / "node_modules"
        package = modules / PACKAGE
        code = (package / BUNDLE).read_bytes()
        about = json.loads((package / "package.json").read_text(encoding="utf-8"))
        licences = third_party(modules, package / "dist" / "metafile-esm.json")
    TARGET.mkdir(exist_ok=True)
    (TARGET / "niivue.js.gz").write_bytes(gzip.compress(code, 9, mtime=0))
    (TARGET / "niivue.THIRD-PARTY").write_text(licences, encoding="utf-8")
    known = {name: about[name] for name in ("name", "version", "license")}
    record = {**known, "file": BUNDLE, "sha256": hashlib.sha256(code).hexdigest()}
    (TARGET / "niivue.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"{PACKAGE} {about['version']}: {len(code)} bytes")


def third_party(modules: Path, listing: Path) -> str:
    """Licences of the packages that the list of bundled files names."""
    files = [name for name in json.loads(listing.read_text(encoding="utf-8"))["inputs"] if "node_modules/" in name]
    places = [name.rpartition("node_modules/")[2].split("/") for name in files]
    names = sorted({"/".join(parts[: 2 if parts[0].startswith("@") else 1]) for parts in places})
    texts = []
    for name in names:
        about = json.loads((modules / name / "package.json").read_text(encoding="utf-8"))
        found = sorted(
            path for path in (modules / name).iterdir() if path.name.lower().startswith(("licen", "copying"))
        )
        text = found[0].read_text(encoding="utf-8").strip() if found else f"Licence: {about['license']}"
        texts.append(f"{name} {about['version']}\n{'-' * 40}\n{text}\n")
    return "\n\n".join(texts)


if __name__ == "__main__":
    main(*sys.argv[1:2])
