"""``qsmxt BIDS OUT participant``: the BIDS App."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsmxt.cli.arguments import Options, parse
from qsmxt.errors import MissingInputError, OutputError, QSMxTError, ValidationError

if TYPE_CHECKING:
    from qsmxt.config import Settings
    from qsmxt.workflows.resources import Resources
    from qsmxt.workflows.watch import Outcome

logger = logging.getLogger("qsmxt")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = parse(arguments)
    start_logging(options.verbosity)
    try:
        return run(options)
    except QSMxTError as error:
        logger.error("%s", error)
        return error.exit_code
    except KeyboardInterrupt:
        logger.error("interrupted; the same command continues where it stopped")
        return 130


class ErrorStream(logging.StreamHandler):  # type: ignore[type-arg]
    """Write to what is the standard error stream at the time, so that progress bars stay whole."""

    @property
    def stream(self) -> Any:  # type: ignore[override]
        """The stream."""
        return sys.stderr

    @stream.setter
    def stream(self, value: Any) -> None:
        pass


def start_logging(verbosity: int) -> None:
    """Messages to the standard error stream; nipype speaks only when asked to."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity + 1, 2)]
    handler = ErrorStream()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def run(options: Options) -> int:
    """Everything after the command line was understood."""
    from qsmxt import config

    settings = config.load(options.preset, options.config_file, options.flags)
    code = 0
    if "participant" in options.levels:
        code = run_participants(options, settings)
    if "group" in options.levels:
        group_code = announce(options, settings) if options.dry_run else gather(options, settings)
        code = code or group_code
    return code


def announce(options: Options, settings: Settings) -> int:
    """Say what the group level would do with the results there are."""
    from qsmxt.errors import MissingInputError
    from qsmxt.workflows.cohort import find_cohort
    from qsmxt.workflows.dry_run import describe_cohort

    try:
        cohort = find_cohort(options.out_dir.resolve(), participants=options.participants or None)
        sys.stdout.write(describe_cohort(cohort, settings.group))
    except MissingInputError as error:
        if options.levels == ("group",):
            raise
        sys.stdout.write(f"group: nothing to gather yet; {error}\n")
    return 0


def gather(options: Options, settings: Settings) -> int:
    """The group level."""
    from qsmxt.workflows.group import run_group

    expected: Any = ()
    if (options.bids_dir / "dataset_description.json").exists():
        try:
            selection = select(options, settings)
            expected = selection.units
            for rejected in selection.rejected:
                logger.warning("group: %s cannot be processed: %s", rejected.name, rejected.error)
        except QSMxTError as error:
            logger.warning("group: it is not known who is missing: %s", error)
    return run_group(
        options.out_dir.resolve(),
        options.participants,
        bids_dir=options.bids_dir.resolve(),
        settings=settings,
        expected=expected,
        work_dir=options.work_dir.resolve(),
        resources=find_resources(settings),
        facts=run_facts(options),
    )


def run_participants(options: Options, settings: Settings) -> int:
    """The participant level."""
    from qsmxt.lean import DISCOVERY, STEPS, import_libraries, no_garbage

    resources = find_resources(settings)
    if resources.nprocs > 1 and not options.dry_run and resources.plugin is None:
        from qsmxt.workflows.startup import start_fork_server

        start_fork_server("qsmxt.cli.run")
    validate_input(options)
    with no_garbage():
        import_libraries(*DISCOVERY, *(STEPS if resources.nprocs == 1 and not options.dry_run else ()))
        selection = select(options, settings)
        from qsmxt.workflows.participants import prepare
        from qsmxt.workflows.watch import Outcome

        prepared, skipped = prepare(
            selection.units, settings, segmentation_planner(options, settings), resolved(options.derivatives),
            source_finder(settings),
        )  # fmt: skip
    skipped += [Outcome(r.name, r.subject, "skipped", r.error, exit_code=65) for r in selection.rejected]
    if options.dry_run:
        from qsmxt.workflows.dry_run import describe_plans

        sys.stdout.write(describe_plans(prepared, skipped, settings))
        return exit_code(skipped)
    outcomes = process(options, settings, resources, prepared, skipped)
    sys.stdout.write(format_table(outcomes))
    return exit_code(outcomes)


def segmentation_planner(options: Options, settings: Settings) -> Any:
    """What plans the segmentation of a unit, or nothing if none is asked for."""
    if not settings.outputs.segmentation:
        return None
    from functools import partial

    from qsmxt.workflows.segmentation import plan_segmentation

    return partial(
        plan_segmentation,
        settings=settings.segmentation,
        bids_dir=options.bids_dir.resolve(),
        derivatives=resolved(options.derivatives),
        work_dir=options.work_dir.resolve(),
    )


def source_finder(settings: Settings) -> Any:
    """What finds a DICOM file of the study of a unit, or nothing if exported series shall not join one."""
    outputs = settings.outputs
    if outputs.source_dicom is None:
        return None
    if not outputs.export_dicom:
        logger.warning("--source-dicom has no effect without --export-dicom")
        return None
    from qsmxt.workflows.dicom import SourceFinder

    return SourceFinder(Path(outputs.source_dicom).resolve())


def resolved(derivatives: Mapping[str, Path]) -> dict[str, Path]:
    """The folders of other derivatives as absolute paths."""
    return {name: path.resolve() for name, path in derivatives.items()}


def validate_input(options: Options) -> None:
    """Run the official validator unless told not to."""
    if not options.bids_dir.is_dir():
        raise MissingInputError(f"bids_dir: expected a folder, found nothing at {options.bids_dir}")
    if options.skip_validation:
        return
    from qsmxt.bids.validation import validate

    errors = validate(options.bids_dir)
    if errors:
        shown = "\n  ".join(errors[:20])
        raise ValidationError(
            f"{options.bids_dir} is not valid BIDS ({len(errors)} errors):\n  {shown}\n"
            "correct them, or use --skip-bids-validation"
        )


def select(options: Options, settings: Settings) -> Any:
    """The units that the command line asks for."""
    from qsmxt.bids.filters import load_filter_file
    from qsmxt.bids.queries import find_units

    selection = find_units(
        options.bids_dir.resolve(),
        participants=options.participants,
        sessions=options.sessions,
        filters=load_filter_file(options.filter_file) if options.filter_file else None,
        database_dir=options.database_dir,
        field_strength=settings.acquisition.field_strength,
    )
    for note in selection.notes:
        logger.warning("%s", note)
    return selection


def find_resources(settings: Settings) -> Resources:
    """What may be used: as asked for, else all processors and nine tenths of the memory."""
    from qsmxt.workflows.resources import find

    return find(settings.execution)


def process(
    options: Options, settings: Settings, resources: Resources, prepared: list[Any], skipped: list[Outcome]
) -> list[Outcome]:
    """Run the units, and write what belongs to the dataset as a whole whatever happens to them."""
    from qsmxt.workflows.dataset import Finisher, finish_dataset, start_dataset
    from qsmxt.workflows.estimate import HELD_GB
    from qsmxt.workflows.execution import is_serial
    from qsmxt.workflows.participants import run_units
    from qsmxt.workflows.resources import threads_per_node
    from qsmxt.workflows.unit import Context
    from qsmxt.workflows.versions import code_digest, version

    out_dir, work_dir = options.out_dir.resolve(), options.work_dir.resolve()
    threads = threads_per_node(resources, len(prepared))
    held_gb = HELD_GB if is_serial(resources) else 0.0
    context = Context(options.bids_dir.resolve(), out_dir, version(), code_digest(), threads, work_dir, held_gb)
    subjects = sorted({item.unit.subject for item in prepared} | {outcome.subject for outcome in skipped})
    facts = run_facts(options)
    start_dataset(context, settings, subjects, facts)
    outcomes = list(skipped)
    finisher = Finisher(context, units_to_finish(settings, resources, prepared, skipped), facts)
    try:
        if prepared:
            try:
                work_dir.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"work folder {work_dir}: cannot be made ({error.strerror}); use -w") from None
            outcomes += run_units(prepared, settings, context, work_dir, resources, finisher)
            if settings.outputs.orientation:
                from qsmxt.workflows.orientation import run_orientations

                units = [item.unit for item in prepared]
                outcomes += run_orientations(units, outcomes, settings, context, work_dir, resources)
    finally:
        finish_dataset(context, subjects, outcomes, facts, finisher.close())
    return outcomes


def units_to_finish(
    settings: Settings, resources: Resources, prepared: Sequence[Any], skipped: Sequence[Outcome]
) -> dict[str, list[str]]:
    """The units of every subject whose page need not wait for the end: nothing that comes later belongs on it."""
    from qsmxt.workflows.execution import is_serial

    if is_serial(resources) or settings.outputs.orientation:
        return {}
    units: dict[str, list[str]] = {}
    for item in prepared:
        units.setdefault(item.unit.subject, []).append(item.unit.name)
    return {subject: names for subject, names in units.items() if subject not in {o.subject for o in skipped}}


def run_facts(options: Options) -> dict[str, Any]:
    """When and how this run was started, for the record."""
    from qsmxt import __version__

    facts = {
        "version": __version__,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "bids_dir": str(options.bids_dir.resolve()),
        "out_dir": str(options.out_dir.resolve()),
        "work_dir": str(options.work_dir.resolve()),
        "process": os.getpid(),
    }
    return {**facts, "participants": list(options.participants)} if options.participants else facts


def format_table(outcomes: Sequence[Outcome]) -> str:
    """What became of every unit and what was made of it, the unhappy ones last, and the totals."""
    order = {"done": 0, "skipped": 1, "failed": 2}
    width = max((len(outcome.name) for outcome in outcomes), default=0)
    lines = []
    for outcome in sorted(outcomes, key=lambda o: (order[o.status], o.name)):
        made = f"made {', '.join(outcome.made)}" if outcome.made else ""
        told = "; ".join(text for text in (made, outcome.reason) if text)
        lines.append(f"{outcome.name:<{width}}  {outcome.status:<7}  {told}".rstrip())
        lines += [f"{'':<{width}}           {path}" for path in outcome.crash_files]
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in order}
    lines.append(", ".join(f"{number} {status}" for status, number in counts.items()))
    return "\n".join(lines) + "\n"


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """1 if anything failed; the code of the skipped units if there are any; else 0."""
    if any(outcome.status == "failed" for outcome in outcomes):
        return 1
    codes = {outcome.exit_code for outcome in outcomes if outcome.status == "skipped"}
    if not codes:
        return 0
    return codes.pop() if len(codes) == 1 else 65


if __name__ == "__main__":
    raise SystemExit(main())
