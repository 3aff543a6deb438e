"""Make the files of a plan: every acquisition at once or not at all, several at the same time."""

from __future__ import annotations

import os
import shutil
import threading
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from qsmxt.bids.atomic import write_json
from qsmxt.convert.anonymisation import private_words
from qsmxt.convert.archives import Problem
from qsmxt.convert.coils import combine_coils, combined_name, find_method
from qsmxt.convert.dataset import add_scans, check_inside, install, read_json, save_image
from qsmxt.convert.dcm2niix import Converter
from qsmxt.convert.plan import Piece, Unit
from qsmxt.convert.settings import Progress, Report, Settings
from qsmxt.convert.sidecar import complete, without_identity
from qsmxt.convert.vendor import Image, correct_phases
from qsmxt.errors import QSMxTError

#: Numbers that BIDS wants of the inversions of an MP2RAGE; many headers do not have them.
_MP2RAGE_NUMBERS = {"RepetitionTimeExcitation", "RepetitionTimePreparation", "NumberShots", "InversionTime"}


class Job:
    """Units converted by several threads; the report is the only thing that they share."""

    def __init__(
        self, dataset: Path, scratch: Path, settings: Settings, report: Report, total: int, progress: Progress | None
    ) -> None:
        self.dataset, self.scratch, self.settings, self.report = dataset, scratch, settings, report
        self.total, self.progress = total, progress
        self.method = find_method(settings.combine).key if settings.combine else ""
        self.done = 0
        self.lock = threading.Lock()

    def run(self, units: Sequence[Unit]) -> None:
        """Convert all units; those of one multi-frame file follow each other, so that it is converted once."""
        buckets: dict[str, list[Unit]] = defaultdict(list)
        for number, unit in enumerate(units):
            shared = next((r.source.path for r in unit.rows if r.source.multiframe), str(number))
            buckets[shared].append(unit)
        workers = self.settings.workers or min(8, len(os.sched_getaffinity(0)))
        with ThreadPoolExecutor(max(1, workers)) as pool:
            list(pool.map(self._bucket, enumerate(buckets.values())))
        self.report.written.sort()
        self.report.kept.sort()
        self.report.problems.sort(key=lambda p: (p.name, p.reason))
        self.report.warnings.sort(key=lambda p: (p.name, p.reason))

    def _bucket(self, numbered: tuple[int, list[Unit]]) -> None:
        number, units = numbered
        folder = self.scratch / f"{number:05d}"
        folder.mkdir()
        converter = Converter(folder)
        for unit in units:
            self._unit(unit, converter, folder)
            with self.lock:
                self.done += 1
                if self.progress is not None:
                    self.progress(unit.name, self.done, self.total)
        shutil.rmtree(folder, ignore_errors=True)

    def _unit(self, unit: Unit, converter: Converter, folder: Path) -> None:
        for text in unit.warnings:
            self._tell(self.report.problems, unit, text)
        if not unit.pieces:
            return
        combines = bool(self.settings.combine) and not unit.rows[0].combined and unit.type == "part"
        outputs = [combined_name(o, self.method) for o in unit.outputs] if combines else unit.outputs
        if unit.existing(self.dataset, outputs) and not self.settings.overwrite:
            reason = self._conflict(unit, outputs)
            if reason:
                self._tell(self.report.problems, unit, reason)
            else:
                with self.lock:
                    self.report.kept.append(unit.name)
            return
        try:
            pairs = self._make(unit, converter, folder)
            with self.lock:
                install(pairs, overwrite=self.settings.overwrite)
                self._register(unit, pairs)
        except QSMxTError as error:
            self._tell(self.report.problems, unit, str(error))
        except Exception as error:  # one damaged series must not stop the others
            self._tell(self.report.problems, unit, f"failed ({type(error).__name__}: {error})")

    def _tell(self, where: list[Problem], unit: Unit, text: str) -> None:
        titles = ", ".join(dict.fromkeys(row.title for row in unit.rows))
        with self.lock:
            where.append(Problem(f"{unit.name} ({titles})" if titles not in unit.name else unit.name, text))

    def _conflict(self, unit: Unit, outputs: Sequence[PurePosixPath]) -> str:
        """Why the files that are there are not those that would be made; empty if they are."""
        absent = [out.name for out in outputs if not (self.dataset / f"{out}.nii.gz").exists()]
        if absent:
            return f"is there in part only, without {absent[0]}; give --overwrite to make all of it"
        for out in outputs:
            path = self.dataset / f"{out}.json"
            facts = read_json(path) if path.exists() else {}
            known: dict[str, set[Any]] = {
                "SeriesInstanceUID": {row.source.series_uid for row in unit.rows},
                "SeriesNumber": {row.source.series_number for row in unit.rows},
            }
            for name, mine in known.items():
                if name in facts and facts[name] not in mine:
                    return f"another series already has the name {out.name}; give this one another run or acquisition"
        return ""

    def _make(self, unit: Unit, converter: Converter, folder: Path) -> list[tuple[Path, Path]]:
        """Finished files in the scratch folder, and where they belong.

        Receive elements are finished one after the other, so that they need not all be in memory at once.
        """
        combines = bool(self.settings.combine) and not unit.rows[0].combined and unit.type == "part"
        batches = [unit.pieces]
        if not combines:
            batches = [[p for p in unit.pieces if p.coil == coil] for coil in sorted({p.coil for p in unit.pieces})]
        pairs: list[tuple[Path, Path]] = []
        for pieces in batches:
            images = self._images(unit, pieces, converter)
            if combines:
                pieces, images = combine_coils(unit, images, self.method)
            for piece, echo in zip(pieces, images, strict=True):
                for part, image in echo.items():
                    pairs += self._save(unit, piece, part, image, folder / f"ready-{len(pairs):05d}")
        return pairs

    def _images(self, unit: Unit, pieces: Sequence[Piece], converter: Converter) -> list[dict[str, Image]]:
        """Images of some pieces, by part, with the corrections of the maker."""
        converted = []
        for piece in pieces:
            converted.append({part: converter.convert(volume) for part, volume in piece.volumes.items()})
            for text in converter.messages:
                if text.startswith("Error"):
                    self._tell(self.report.warnings, unit, text)
        if unit.type != "part":
            return [{part: Image.of(one) for part, one in echo.items()} for echo in converted]
        images, warnings = correct_phases(converted, unit.rows[0].source.vendor)
        for text in warnings:
            self._tell(self.report.warnings, unit, text)
        return images

    def _save(self, unit: Unit, piece: Piece, part: str, image: Image, temporary: Path) -> list[tuple[Path, Path]]:
        volume = piece.volumes.get(part) or piece.volumes.get("real") or next(iter(piece.volumes.values()))
        if unit.type == "fieldmap":
            _fieldmap_sidecar(unit, part, image)
        sidecar = complete(image.sidecar, volume, part)
        if unit.type == "fieldmap" and part == "phasediff":
            sidecar.pop("EchoTime", None)
        if self.settings.anonymise:
            sidecar = without_identity(sidecar, private_words(volume.source))
        target = piece.outputs[part]
        if target.name.endswith("_MP2RAGE") and not set(sidecar) >= _MP2RAGE_NUMBERS:
            with self.lock:
                self.report.ignored.add("*_MP2RAGE.*")
        ready_json = write_json(temporary.with_suffix(".json"), sidecar)
        ready = save_image(temporary.with_suffix(".nii.gz"), image)
        return [
            (ready_json, check_inside(self.dataset, f"{target}.json")),
            (ready, check_inside(self.dataset, f"{target}.nii.gz")),
        ]

    def _register(self, unit: Unit, pairs: Sequence[tuple[Path, Path]]) -> None:
        images = [target for _, target in pairs if target.name.endswith(".nii.gz")]
        self.report.written += images
        if unit.type == "extra":
            return
        folder = self.dataset / f"sub-{unit.subject}"
        folder = folder / f"ses-{unit.session}" if unit.session else folder
        source = unit.rows[0].source
        public = [image for image in images if "_coil-" not in image.name]
        times = {image.relative_to(folder).as_posix(): _acquisition_time(source) for image in public}
        if times:
            add_scans(self.dataset, unit.subject, unit.session, times)


def _fieldmap_sidecar(unit: Unit, part: str, image: Image) -> None:
    if part == "fieldmap":
        image.sidecar["Units"] = "Hz"
    elif part in ("phase1", "phase2", "phasediff"):
        image.sidecar["Units"] = "arbitrary"
    if part == "phasediff":
        times = next((row.echo_times for row in unit.rows if len(row.echo_times) == 2), None)
        if times is not None:
            image.sidecar["EchoTime1"], image.sidecar["EchoTime2"] = times


def _acquisition_time(source: object) -> str:
    """Date and time in the form of BIDS, or empty."""
    day = getattr(source, "acquisition_date", "") or getattr(source, "study_date", "")
    clock = getattr(source, "acquisition_time", "").replace(":", "")
    if len(day) != 8 or not day.isdigit() or len(clock) < 6:
        return ""
    return f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:6]}"
