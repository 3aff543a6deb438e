"""``qsmxt-step STAGE METHOD``: one registered method on NIfTI files.

The options follow from the declaration of the method: one per array it consumes or can use, one per parameter::

    qsmxt-step unwrapping romeo --offset-free-phase e1.nii e2.nii --magnitude m1.nii m2.nii \\
        --echo-times 0.005 0.010 --output out/sub-1
    qsmxt-step background lbv --total-field f.nii --mask m.nii --output out/sub-1

Arrays that are one file each may be named without options, in the order of the help::

    qsmxt-step inversion tkd local.nii.gz mask.nii.gz --params params.json -o chi.nii.gz

Every array that the method makes is written to ``OUTPUT_<array>.nii.gz`` with a JSON sidecar that holds the method,
all its parameters, the values found for those of ``auto``, and the version. If the output is called like an image, the
first array is written there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qsmxt import __version__
from qsmxt.cli.options import Formatter, Parser, describe_stage, hyphened, setting_arguments
from qsmxt.errors import InputError, MissingInputError, ParameterError, QSMxTError
from qsmxt.registry.artifacts import ARTIFACTS, STACKED, Artifact
from qsmxt.registry.catalogue import CataloguedMethod, catalogue, find

_PROGRAM = "qsmxt-step"

#: Options of the command itself.
_OWN_OPTIONS = ("output", "params", "b0_direction", "num_threads", "help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if len(words) < 2 or words[0].startswith("-") or words[1].startswith("-"):
            return _overview(words)
        method = find(words[0], words[1])
        options = build_parser(method).parse_args(words[2:])
        run(method, options)
    except QSMxTError as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _overview(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description="Run one method on NIfTI files.")
    parser.add_argument("--version", action="version", version=f"qsmxt {__version__}")
    parser.add_argument("stage", choices=[stage for stage, methods in catalogue().items() if methods])
    parser.add_argument("method", nargs="?", help="omit it to see all of the stage; --help after it: its options")
    parser.epilog = "; ".join(f"{stage}: {', '.join(methods)}" for stage, methods in catalogue().items() if methods)
    options = parser.parse_args(words)
    sys.stdout.write(describe_stage(options.stage))
    return 0


def build_parser(method: CataloguedMethod) -> Parser:
    """The parser of one method."""
    parser = Parser(
        prog=f"{_PROGRAM} {method.stage} {method.key}",
        description=method.title,
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.set_defaults(flags={})
    plain = [name for name in method.consumes if _is_one_file(name)]
    if plain:
        parser.add_argument(
            "images", nargs="*", type=Path, metavar="NIFTI",
            help=f"{', '.join(plain)}, in this order, as far as no option gives them",
        )  # fmt: skip
    arrays = parser.add_argument_group("arrays")
    for name in (*method.consumes, *method.optional):
        _add_array(parser, arrays, ARTIFACTS[name], required=name in method.consumes and not _is_one_file(name))
    output = parser.add_argument_group("output")
    parser.add(
        output, "--output", "-o", type=Path, required=True, metavar="PREFIX",
        help=f"beginning of the names of {', '.join(method.produces)}, or the file of the first",
    )  # fmt: skip
    parser.add(output, "--params", type=Path, metavar="JSON", help="file with parameters; options win")
    parser.add(
        output, "--b0-direction", type=float, nargs=3, metavar="B", help="in voxel axes (default: from the affine)"
    )
    parser.add(output, "--num-threads", type=int, default=None, metavar="N", help="threads (default: all processors)")
    group = parser.add_argument_group("parameters")
    for declared in method.declarations:
        name = parameter_option(method, declared.name)
        for option, keywords in setting_arguments(name, (declared.name,), declared):
            parser.add(group, option, **keywords)
    return parser


def _is_one_file(name: str) -> bool:
    return ARTIFACTS[name].kind in ("volume", "mask", "labels")


def _place_images(method: CataloguedMethod, options: argparse.Namespace) -> None:
    """Give the images without option to the arrays that have none yet."""
    images = list(getattr(options, "images", []))
    for name in method.consumes:
        if _is_one_file(name) and getattr(options, name) is None:
            if not images:
                raise ParameterError(f"{method.name}: expected {name}, found none; add --{hyphened(name)} FILE")
            setattr(options, name, images.pop(0))
    if images:
        raise ParameterError(
            f"{images[0]}: expected no more images, found {len(images)}; {method.name} has all it needs"
        )


def _output(prefix: Path, name: str, *, first: bool) -> Path:
    """File of the array ``name``; ``prefix`` may be the name of the first array's image."""
    stem = next((prefix.name[: -len(end)] for end in (".nii.gz", ".nii") if prefix.name.endswith(end)), None)
    if stem is None:
        return prefix.with_name(f"{prefix.name}_{name}.nii.gz")
    return prefix if first else prefix.with_name(f"{stem}_{name}.nii.gz")


def parameter_option(method: CataloguedMethod, name: str) -> str:
    """The option of a parameter; the method's key in front keeps it apart from an array or option of that name."""
    taken = {*method.consumes, *method.optional, *_OWN_OPTIONS}
    return f"--{hyphened(method.key)}-{hyphened(name)}" if name in taken else f"--{hyphened(name)}"


def _add_array(parser: Parser, group: Any, artifact: Artifact, *, required: bool) -> None:
    keywords: dict[str, Any] = {"required": required, "help": f"{artifact.description} [{artifact.unit}]"}
    if artifact.kind == "acquisition":
        many = artifact.name in ("echo_times", "spin_echo_times", "b0_directions")
        keywords |= {"type": float, "nargs": "+" if many else None, "metavar": artifact.unit.upper()}
    else:
        keywords |= {"type": Path, "nargs": "+" if artifact.kind in STACKED else None, "metavar": "NIFTI"}
    parser.add(group, f"--{hyphened(artifact.name)}", dest=artifact.name, **keywords)


def run(method: CataloguedMethod, options: argparse.Namespace) -> list[Path]:
    """Load, run, save; returns the images written."""
    import numpy as np

    from qsmxt.algorithms import parallel
    from qsmxt.bids.atomic import plain
    from qsmxt.bids.outputs import save_volume
    from qsmxt.geometry import Grid
    from qsmxt.registry.methods import automatic_values, lookup

    parameters = method.complete({**_parameters(options.params), **options.flags})
    _place_images(method, options)
    arrays, affine = load_arrays(method, options)
    shape = next(array.shape[-3:] for array in arrays.values() if np.ndim(array) >= 3)
    grid = Grid.from_affine(affine, shape)
    if options.b0_direction:
        grid = Grid(grid.shape, grid.voxel_size, tuple(options.b0_direction))
    parallel.set_thread_count(options.num_threads)
    with automatic_values() as found:
        made = lookup(method.stage, method.key).run(arrays, grid, parameters)
    written = []
    for number, (name, array) in enumerate(made.items()):
        sidecar = {"Method": method.name, "Parameters": parameters, "QSMxTVersion": __version__}
        if found:
            sidecar["AutomaticParameters"] = plain(found)
        part = {"echoes": "echo", "components": "component"}.get(ARTIFACTS[name].kind, "part")
        volumes = {"": array} if array.ndim == 3 else {f"_{part}-{i}": volume for i, volume in enumerate(array, 1)}
        for ending, volume in volumes.items():
            path = _output(options.output, f"{name}{ending}", first=number == 0 and not ending)
            written.append(save_volume(path, volume, affine, unit_label=ARTIFACTS[name].unit, sidecar=sidecar))
    return written


def _parameters(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingInputError(f"--params {file}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ParameterError(f"--params {file}: expected JSON, found {error}") from None
    if not isinstance(values, dict):
        raise ParameterError(f"--params {file}: expected a JSON object, found {type(values).__name__}")
    return values


def load_arrays(method: CataloguedMethod, options: argparse.Namespace) -> tuple[dict[str, Any], Any]:
    """All arrays that were given, and the affine that they share."""
    import numpy as np

    from qsmxt.bids.images import Header, check_same_grid, read_header

    arrays: dict[str, Any] = {}
    first: Header | None = None
    for name in (*method.consumes, *method.optional):
        given = getattr(options, name)
        if given is None:
            continue
        if ARTIFACTS[name].kind == "acquisition":
            arrays[name] = np.asarray(given, dtype=np.float64)
            continue
        files = given if isinstance(given, list) else [given]
        for file in files:
            header = read_header(file)
            first = first or header
            check_same_grid(first, header)
        arrays[name] = _as_declared(ARTIFACTS[name], [_read(file) for file in files])
    if first is None:
        raise InputError(f"{method.name}: expected at least one image, found none")
    return arrays, first.affine


def _read(file: Path) -> Any:
    import numpy as np

    from qsmxt.bids.images import stored_values

    values, slope, intercept = stored_values(file)
    return np.asarray(values * slope + intercept, dtype=np.float32)


def _as_declared(artifact: Artifact, volumes: list[Any]) -> Any:
    """Volumes as the method wants them: echo axis first, masks bool, C order."""
    import numpy as np

    if artifact.kind in STACKED:
        whole = np.stack(volumes)
    else:
        (whole,) = volumes
    if artifact.kind == "mask":
        return np.ascontiguousarray(whole > 0.5)
    if artifact.kind == "labels":
        return np.ascontiguousarray(np.rint(whole).astype(np.int32))
    return np.ascontiguousarray(whole, dtype=np.float32)


if __name__ == "__main__":
    raise SystemExit(main())
