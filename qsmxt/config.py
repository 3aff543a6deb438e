"""Settings: default preset < chosen preset < file < flags, checked, complete, and saved so that a run can be repeated.

A settings file is TOML. Every stage is a table that names its method, with a table of parameters per method::

    [acquisition]
    phase_sign = "auto"

    [masking]
    sections = ["..."]

    [inversion]
    method = "tkd"

    [inversion.tkd]
    threshold = 0.15

    [single_echo.offset]        # used instead where a unit has one echo only
    method = "none"

An unknown table, key, method or parameter is an error that names it and its nearest valid neighbours. The table
``[run]`` says when and how a saved file came about; it is not read back.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qsmxt.errors import MissingInputError, ParameterError
from qsmxt.registry.catalogue import CataloguedMethod, catalogue, find
from qsmxt.registry.mask_sections import check_sections
from qsmxt.registry.methods import declared_fields, parameter
from qsmxt.registry.stages import stage_keys

PRESETS_FOLDER = Path(__file__).parent / "data" / "presets"
DEFAULT_PRESET = "default"

#: What a stage is set to when nothing shall happen in it.
NO_METHOD = "none"

#: Tables and keys that describe a file and are not settings.
_DESCRIPTIVE = ("description", "run")

Layer = dict[str, Any]


@dataclass(frozen=True)
class AcquisitionSettings:
    """How the scanner's files are read."""

    phase_sign: str = parameter(
        "auto", choices=("auto", "+", "-"), help='sign of the stored phase: "-" inverts it, "auto" goes by the maker'
    )
    phase_range: tuple[float, float] | None = parameter(
        None, help="the two stored values that stand for -pi and pi, where sidecar and header do not tell"
    )
    field_strength: float | None = parameter(
        None, unit="T", above=0, at_most=25, help="main field, where the sidecar does not tell"
    )


@dataclass(frozen=True)
class MaskingSettings:
    """Where susceptibility is reconstructed."""

    sections: tuple[str, ...] = parameter((), help="how masks are made: input,generator,refinement,...")
    combine: str = parameter(
        "and", choices=("and", "or"), help="what of several sections is kept: common or any voxels"
    )
    human_brain: bool = parameter(True, help="expect a human brain: implausible masks are reported")


@dataclass(frozen=True)
class OutputSettings:
    """What is made."""

    qsm: bool = parameter(True, help="susceptibility map")
    swi: bool = parameter(False, help="susceptibility-weighted image and its minimum intensity projection")
    r2star: bool = parameter(False, help="map of R2*")
    t2star: bool = parameter(False, help="map of T2*")
    separation: bool = parameter(False, help="maps of paramagnetic and diamagnetic susceptibility")
    orientation: bool = parameter(False, help="one susceptibility map from all orientations of a head")
    segmentation: bool = parameter(False, help="regions in GRE and T1w space, and statistics of all maps in them")
    export_dicom: bool = parameter(False, help="all maps also as DICOM series, in the folder dicom of the session")
    source_dicom: str | None = parameter(
        None, help="DICOM of the scanner, file or folder: exported series join the study of their subject"
    )


@dataclass(frozen=True)
class SegmentationSettings:
    """Where regions come from."""

    seg_method: str = parameter(
        "atlas", choices=("atlas", "precomputed", "synthseg", "fastsurfer", "freesurfer"),
        help="regions from: atlas, dseg images in --derivatives (precomputed), or a program on the PATH",
    )  # fmt: skip
    atlas: tuple[str, ...] = parameter(
        (), help="atlases, ATLAS or TEMPLATE:ATLAS (default: all in --template-dir, else deep grey matter, MASSP20)"
    )
    template_dir: str | None = parameter(
        None, help="folder with template and atlas, laid out like TemplateFlow or as *_T1w, *_Chimap, *_dseg files"
    )
    output_spaces: tuple[str, ...] = parameter((), help="write maps also in these spaces: T1w, name of the template")
    seg_channels: str = parameter(
        "auto", choices=("auto", "anatomy"), help="register by anatomy and, if the template has it, susceptibility"
    )
    seg_fast: bool = parameter(False, help="register at 2 mm instead of 1 mm")


@dataclass(frozen=True)
class GroupSettings:
    """What the group level makes of the participants' results."""

    require: str = parameter("1", help="fewest scans with results to go on, or all: no scan may be without")
    statistic: str = parameter(
        "mean",
        choices=("mean", "median", "mean_weighted", "mean_eroded", "mean_probability", "mean_unmixed"),
        help="what of a region is compared: a column of its statistics",
    )
    models: tuple[str, ...] = parameter((), help='linear models for every region, such as "chi ~ age + sex"')
    template: bool = parameter(True, help="average brain of the cohort with its susceptibility")
    cohort: str = parameter("cohort", help="name of the template, letters and digits: tpl-NAME, space-NAME")
    voxel_size: float | None = parameter(
        None, unit="mm", above=0, help="voxels of the template (default: the finest edge of any scan, at least 1)"
    )
    target: str | None = parameter(
        None, help="image, or name of a template, to align to at first (default: the sharpest scan)"
    )
    anatomy: str = parameter(
        "auto",
        choices=("auto", "magnitude"),
        help="guided by T1-weighted images if every scan has one, or by magnitude",
    )
    standard: str | None = parameter(
        None, help="template that the cohort's is linked to by transforms, of TemplateFlow or --template-dir"
    )
    affine_iterations: int = parameter(2, at_least=0, help="affine rounds of the template")
    deformable_iterations: int = parameter(4, at_least=0, help="deformable rounds of the template")
    schedule: tuple[int, int, int, int] = parameter(
        (100, 70, 50, 10), help="most steps of a deformable registration at 1/8, 1/4, 1/2 and full resolution"
    )
    voxelwise: bool = parameter(False, help="test the models at every voxel of the template too, by permutation")
    permutations: int = parameter(1000, at_least=20, help="permutations of a term of a voxel-wise model")
    smoothing: float = parameter(
        3.0, unit="mm", at_least=0, help="smoothing of the maps of a voxel-wise model, full width at half maximum"
    )
    sharpening: float = parameter(0.5, at_least=0, at_most=2, help="unsharp masking of the template's images")


@dataclass(frozen=True)
class ExecutionSettings:
    """Resources; they never change a result."""

    nprocs: int | None = parameter(None, at_least=1, help="most processors in use at once (default: all)")
    omp_nthreads: int | None = parameter(None, at_least=1, help="most threads of one step (default: up to 8)")
    mem_gb: float | None = parameter(None, unit="GB", above=0, help="most memory in use at once (default: 90 %)")
    stop_on_first_crash: bool = parameter(False, help="stop everything when one step fails")
    resource_monitor: bool = parameter(False, help="one table of the time and memory of all steps, logs/resources.tsv")
    clean_work: bool = parameter(False, help="remove the intermediate results of a unit when it is finished")
    plugin_file: str | None = parameter(None, help="YAML file with a nipype plugin and its plugin_args")


@dataclass(frozen=True)
class StageSettings:
    """Method of one stage and the given parameters of any of the stage's methods, by method."""

    method: str = NO_METHOD
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def complete(self, stage: str) -> dict[str, Any]:
        """Every parameter of the method, given or default."""
        return find(stage, self.method).complete(self.parameters.get(self.method))


_SECTIONS: dict[str, type] = {
    "acquisition": AcquisitionSettings,
    "masking": MaskingSettings,
    "outputs": OutputSettings,
    "segmentation": SegmentationSettings,
    "group": GroupSettings,
    "execution": ExecutionSettings,
}


@dataclass(frozen=True)
class Settings:
    """Everything that determines a run besides its input."""

    acquisition: AcquisitionSettings = AcquisitionSettings()
    masking: MaskingSettings = MaskingSettings()
    outputs: OutputSettings = OutputSettings()
    segmentation: SegmentationSettings = SegmentationSettings()
    group: GroupSettings = GroupSettings()
    execution: ExecutionSettings = ExecutionSettings()
    stages: Mapping[str, StageSettings] = field(default_factory=dict)
    single_echo: Mapping[str, StageSettings] = field(default_factory=dict)

    def stage(self, key: str, echoes: int = 2) -> StageSettings:
        """What stage ``key`` does for a unit of so many echoes."""
        chosen = self.stages.get(key, StageSettings())
        if echoes == 1 and key in self.single_echo:
            return StageSettings(self.single_echo[key].method, chosen.parameters)
        return chosen

    def chosen(self, echoes: int = 2) -> dict[str, CataloguedMethod]:
        """The method of every stage that has one, for a unit of so many echoes."""
        settings = {key: self.stage(key, echoes) for key in stage_keys()}
        return {key: find(key, stage.method) for key, stage in settings.items() if stage.method != NO_METHOD}

    def to_dict(self) -> Layer:
        """A complete layer, every parameter of every chosen method spelled out."""
        layer: Layer = {name: _without_none(dataclasses.asdict(getattr(self, name))) for name in _SECTIONS}
        for key, stage in self.stages.items():
            layer[key] = {
                **layer.get(key, {}),
                "method": stage.method,
                **{k: dict(v) for k, v in stage.parameters.items()},
            }
            for used in {stage.method, self.stage(key, 1).method} - {NO_METHOD}:
                layer[key][used] = _without_none(find(key, used).complete(stage.parameters.get(used)))
        if self.single_echo:
            layer["single_echo"] = {key: {"method": stage.method} for key, stage in self.single_echo.items()}
        return layer


def preset_names() -> tuple[str, ...]:
    """Names of the presets that come with the package, the default first."""
    found = sorted(path.stem for path in PRESETS_FOLDER.glob("*.toml"))
    return tuple(sorted(found, key=lambda name: name != DEFAULT_PRESET))


@functools.cache
def preset_descriptions() -> dict[str, str]:
    """One line about every preset."""
    return {name: str(_read_toml(PRESETS_FOLDER / f"{name}.toml").get("description", "")) for name in preset_names()}


def default_table() -> Layer:
    """The default preset as it is written, unchecked."""
    return _read_toml(PRESETS_FOLDER / f"{DEFAULT_PRESET}.toml")


def read_preset(name: str) -> Layer:
    """The layer of preset ``name``."""
    if name not in preset_names():
        raise ParameterError(f"unknown preset {name!r}; expected one of {', '.join(preset_names())}")
    return read_file(PRESETS_FOLDER / f"{name}.toml")


def read_file(path: str | Path) -> Layer:
    """The layer of a settings file.

    Raises
    ------
    MissingInputError, ParameterError
        If the file cannot be read, is not TOML, or holds an unknown key.
    """
    layer = _read_toml(Path(path))
    check_layer(layer, f"settings file {path}")
    return layer


def _read_toml(path: Path) -> Layer:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingInputError(f"settings file {path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ParameterError(f"settings file {path}: expected TOML, found {error}") from None


def check_layer(layer: Mapping[str, Any], origin: str) -> None:
    """Raise :class:`ParameterError` at the first table, key, method or parameter that does not exist."""
    tables = (*_SECTIONS, *(key for key in stage_keys() if key not in _SECTIONS), "single_echo")
    for name, table in layer.items():
        if name in _DESCRIPTIVE:
            continue
        _known(name, tables, f"{origin}: table")
        if not isinstance(table, Mapping):
            raise ParameterError(f"{origin}: {name}: expected a table, found {table!r}")
        if name == "single_echo":
            for stage, choice in table.items():
                _known(stage, stage_keys(), f"{origin}: single_echo")
                for key in choice:
                    _known(key, ("method",), f"{origin}: single_echo.{stage}")
        elif name in _SECTIONS:
            fields = [declared.name for declared in declared_fields(_SECTIONS[name])]
            for key in table:
                _known(key, fields, f"{origin}: {name}")
        else:
            _check_stage(name, table, origin)


def _check_stage(stage: str, table: Mapping[str, Any], origin: str) -> None:
    methods = catalogue()[stage]
    for key, value in table.items():
        if key == "method":
            _known(str(value), (*methods, NO_METHOD), f"{origin}: {stage}.method")
            continue
        _known(key, ("method", *methods), f"{origin}: {stage}")
        if not isinstance(value, Mapping):
            raise ParameterError(f"{origin}: {stage}.{key}: expected a table of parameters, found {value!r}")
        for name in value:
            _known(name, [p.name for p in methods[key].declarations], f"{origin}: {stage}.{key}")


def _known(name: str, valid: Iterable[str], where: str) -> None:
    valid = list(valid)
    if name in valid:
        return
    near = difflib.get_close_matches(name, valid, n=3, cutoff=0.5)
    remedy = f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(valid)}"
    raise ParameterError(f"{where}: unknown {name!r}; {remedy}")


def merge(*layers: Mapping[str, Any]) -> Layer:
    """One layer in which later ones win, value by value; lists are replaced.

    A layer that names the method of a stage also overrides what earlier layers say about it for one echo.
    """
    merged: Layer = {}
    for layer in layers:
        own = layer.get("single_echo", {})
        for stage, table in layer.items():
            if isinstance(table, Mapping) and "method" in table and stage not in own:
                merged.get("single_echo", {}).pop(stage, None)
        _merge_into(merged, layer)
    for name in _DESCRIPTIVE:
        merged.pop(name, None)
    return merged


def _merge_into(target: Layer, layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping):
            existing = target.setdefault(key, {})
            if isinstance(existing, dict):
                _merge_into(existing, value)
                continue
        target[key] = value


def build(layer: Mapping[str, Any], origin: str = "settings") -> Settings:
    """Settings of a merged layer, every value converted and checked against its bounds."""
    check_layer(layer, origin)
    sections = {name: _build_section(name, kind, layer.get(name, {})) for name, kind in _SECTIONS.items()}
    check_sections(sections["masking"].sections, catalogue()["masking"])
    stages = {key: _build_stage(key, layer[key]) for key in stage_keys() if key in layer and key not in _SECTIONS}
    single = {key: _build_stage(key, table) for key, table in layer.get("single_echo", {}).items()}
    return Settings(**sections, stages=stages, single_echo=single)


def _build_section(name: str, kind: type, table: Mapping[str, Any]) -> Any:
    values = {d.name: d.check(table.get(d.name, d.default), name) for d in declared_fields(kind)}
    return kind(**values)


def _build_stage(stage: str, table: Mapping[str, Any]) -> StageSettings:
    method = str(table.get("method", NO_METHOD))
    given = {}
    for key, values in table.items():
        if key == "method":
            continue
        complete = find(stage, key).complete(values)
        given[key] = {name: complete[name] for name in values}
    if method != NO_METHOD:
        find(stage, method)
    return StageSettings(method, given)


def load(preset: str | None = None, file: str | Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Settings from the default preset, a chosen preset, a file and flags; later ones win."""
    layers = [read_preset(DEFAULT_PRESET)]
    if preset is not None and preset != DEFAULT_PRESET:
        layers.append(read_preset(preset))
    if file is not None:
        layers.append(read_file(file))
    if flags:
        check_layer(flags, "command line")
        layers.append(dict(flags))
    return build(merge(*layers))


def to_toml(settings: Settings, run: Mapping[str, Any] | None = None) -> str:
    """Text of a settings file that repeats the run; ``run`` is recorded but not read back."""
    import tomli_w

    layer = settings.to_dict()
    if run:
        layer["run"] = dict(run)
    return tomli_w.dumps(_plain(layer))


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value
