"""``qsmxt-step STAGE METHOD``: one registered method on NIfTI files.

The options follow from the declaration of the method: one per array it consumes or can use, one per parameter. Images
may be named without options, in the order of the help, one file each::

    qsmxt-step inversion tkd local.nii.gz mask.nii.gz --threshold 0.2 -o chi.nii.gz
    qsmxt-step unwrapping romeo --offset-free-phase e1.nii e2.nii --magnitude m1.nii m2.nii \\
        --echo-times 0.005 0.010 --output out/sub-1
    qsmxt-step field joint_fit phase.nii.gz magnitude.nii.gz --mask mask.nii.gz --params params.json -o field.nii.gz

Several echoes are one file with the echoes on its fourth axis, or a file each (:mod:`qsmxt.cli.arrays`).

If the output is called like an image, the first array that the method makes is written there, several volumes on the
fourth axis, and the others beside it as ``OUTPUT_<array>``. If not, every array is ``OUTPUT_<array>.nii.gz``, several
volumes a file each. Beside every image is a JSON sidecar with unit, method, all its parameters, the values found for
those of ``auto`` and the version; that of a referenced map states the offset that was subtracted.

``--params`` takes files of parameters, and files that describe an acquisition by ``TE`` (s), ``B0`` (T), ``B0_dir``
(voxel axes) and ``voxel_size`` (mm), as QSM-CI has them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qsmxt import __version__
from qsmxt.cli.arrays import VOXEL_TOLERANCE, Stated, load_arrays, read_stated
from qsmxt.cli.options import Formatter, Parser, describe_stage, hyphened, setting_arguments
from qsmxt.errors import InputError, ParameterError, QSMxTError
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
    images = _images(method)
    parser.add_argument(
        "images", nargs="*", type=Path, metavar="NIFTI",
        help=f"{', '.join(images)}, in this order, one file each, as far as no option gives them",
    )  # fmt: skip
    arrays = parser.add_argument_group("arrays")
    for name in (*method.consumes, *method.optional):
        _add_array(parser, arrays, ARTIFACTS[name])
    output = parser.add_argument_group("output")
    images_made = [name for name in method.produces if ARTIFACTS[name].kind != "acquisition"]
    parser.add(
        output, "--output", "-o", type=Path, required=True, metavar="PREFIX",
        help=f"file of {images_made[0]} (others beside it), or beginning of the names of {', '.join(images_made)}",
    )  # fmt: skip
    parser.add(
        output, "--params", type=Path, action="append", default=[], metavar="JSON",
        help="file with parameters, or with TE (s), B0 (T), B0_dir and voxel_size (mm); may be repeated; options win",
    )  # fmt: skip
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


def _images(method: CataloguedMethod) -> list[str]:
    return [name for name in method.consumes if ARTIFACTS[name].kind != "acquisition"]


def _given(method: CataloguedMethod, options: argparse.Namespace, stated: Stated) -> dict[str, Any]:
    """What is given of all arrays of the method: by option, then by place, then by the files of ``--params``."""
    images = list(options.images)
    given = {}
    for name in (*method.consumes, *method.optional):
        value = getattr(options, name)
        if value is None and images and name in _images(method):
            value = images.pop(0)
        if value is None:
            value = stated.arrays.get(name)
        if value is None and name in method.consumes:
            raise ParameterError(f"{method.name}: expected {name}, found none; add --{hyphened(name)}")
        if value is not None:
            given[name] = value
    if images:
        raise ParameterError(
            f"{images[0]}: expected no more images, found {len(images)}; {method.name} has all it needs"
        )
    return given


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


#: How several volumes of an array are given.
_SEVERAL = {
    "coils": "; a file for every echo with its coils on the fourth axis, or a file for every echo of every coil",
    **dict.fromkeys(
        [kind for kind in STACKED if kind != "coils"], "; one file with the volumes on its fourth axis, or a file each"
    ),
}


def _add_array(parser: Parser, group: Any, artifact: Artifact) -> None:
    text = f"{artifact.description} [{artifact.unit}]{_SEVERAL.get(artifact.kind, '')}"
    keywords: dict[str, Any] = {"help": text}
    if artifact.kind == "acquisition":
        many = artifact.name in ("echo_times", "spin_echo_times", "b0_directions")
        keywords |= {"type": float, "nargs": "+" if many else None, "metavar": artifact.unit.upper()}
    else:
        keywords |= {"type": Path, "nargs": "+" if artifact.kind in STACKED else None, "metavar": "NIFTI"}
    parser.add(group, f"--{hyphened(artifact.name)}", dest=artifact.name, **keywords)


def run(method: CataloguedMethod, options: argparse.Namespace) -> list[Path]:
    """Load, run, save; returns the images written."""
    from qsmxt.algorithms import parallel
    from qsmxt.bids.atomic import plain
    from qsmxt.bids.outputs import susceptibility_reference
    from qsmxt.registry.methods import automatic_values, lookup

    stated = read_stated(options.params, [declared.name for declared in method.declarations])
    if stated.ignored:
        print(f"{_PROGRAM}: --params: not used: {', '.join(stated.ignored)}", file=sys.stderr)
    parameters = method.complete({**stated.parameters, **options.flags})
    arrays, affine = load_arrays(_given(method, options, stated), method.name)
    grid = _grid(arrays, affine, options.b0_direction or stated.b0_direction, stated.voxel_size)
    parallel.set_thread_count(options.num_threads)
    with automatic_values() as found:
        made = lookup(method.stage, method.key).run(arrays, grid, parameters)
    sidecar = {"Method": method.name, "Parameters": parameters, "QSMxTVersion": __version__}
    if found:
        sidecar["AutomaticParameters"] = plain(found)
    if "reference_offset" in made:
        sidecar |= susceptibility_reference(method, parameters, float(made["reference_offset"]))
    return _save(made, options.output, affine, sidecar)


def _grid(arrays: dict[str, Any], affine: Any, direction: Sequence[float] | None, voxel_size: Any) -> Any:
    """The grid of the images, with the direction of B0 if it is stated and the voxel size checked."""
    import numpy as np

    from qsmxt.geometry import Grid

    shape = next(array.shape[-3:] for array in arrays.values() if np.ndim(array) >= 3)
    grid = Grid.from_affine(affine, shape)
    if voxel_size is not None and not np.allclose(voxel_size, grid.voxel_size, rtol=VOXEL_TOLERANCE, atol=0):
        found = " x ".join(f"{v:.4g}" for v in grid.voxel_size)
        raise InputError(
            f"--params: voxel_size: expected that of the images, {found} mm, found "
            f"{' x '.join(f'{v:.4g}' for v in voxel_size)} mm; correct the one that is wrong"
        )
    return grid if direction is None else Grid(grid.shape, grid.voxel_size, tuple(direction))  # type: ignore[arg-type]


def _save(made: dict[str, Any], output: Path, affine: Any, sidecar: dict[str, Any]) -> list[Path]:
    """Write every array that is an image; returns the files."""
    from qsmxt.bids.outputs import save_series, save_volume

    whole = output.name.endswith((".nii", ".nii.gz"))
    written: list[Path] = []
    for name, array in made.items():
        artifact = ARTIFACTS[name]
        if artifact.kind == "acquisition":
            continue
        facts: dict[str, Any] = {"unit_label": artifact.unit, "sidecar": sidecar}
        if array.ndim == 3 or whole:
            save = save_volume if array.ndim == 3 else save_series
            written.append(save(_output(output, name, first=not written), array, affine, **facts))
            continue
        part = {"echoes": "echo", "components": "component"}.get(artifact.kind, "part")
        for number, volume in enumerate(array, 1):
            path = _output(output, f"{name}_{part}-{number}", first=False)
            written.append(save_volume(path, volume, affine, **facts))
    return written


if __name__ == "__main__":
    raise SystemExit(main())
