"""The screens of ``qsmxt-tui``."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import Screen
from textual.widgets import (
    Button,
    Checkbox,
    DirectoryTree,
    Footer,
    Header,
    Input,
    Label,
    ProgressBar,
    RichLog,
    Select,
    SelectionList,
    Static,
    TabbedContent,
    TabPane,
)  # fmt: skip
from textual.worker import get_current_worker

from qsmxt import __version__, config
from qsmxt.cli.tui.choices import (
    MASK_IMAGES,
    Choices,
    mask_methods,
    output_switches,
    preset_layer,
    preset_methods,
    problem,
    stages,
)  # fmt: skip
from qsmxt.errors import QSMxTError

STYLE = """
TabbedContent { height: 1fr; }
#command { border: round $primary; padding: 0 1; height: auto; max-height: 7; }
#problem { color: $warning; padding: 0 1; height: auto; }
#actions { height: auto; padding: 0 1; } #actions Button { margin-right: 2; }
#units { height: 1fr; } #tree { height: 1fr; min-height: 6; } #folders { width: 45%; }
TabPane { padding: 0 1; } .row { height: auto; } Label { padding: 1 0 0 0; }
RunScreen RichLog { height: 1fr; border: round $primary; } #bar { padding: 1 1; }
"""

#: A line of the log that tells of a finished step: unit, steps done, steps in all.
_STEP = re.compile(r"INFO (\S+): \S+ (?:finished|failed) \((\d+) of (\d+)(?:, (.+) left in all)?\)")


def start_run(words: Sequence[str]) -> subprocess.Popen[str]:
    """Start the main command; its output and messages come in one stream."""
    return subprocess.Popen(
        [sys.executable, "-m", "qsmxt", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


class RunScreen(Screen[None]):
    """A run: its progress, its messages, its table at the end."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "leave", "Back (stops the run)")]

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__()
        self.words = list(words)
        self.process: subprocess.Popen[str] | None = None
        self.shares: dict[str, float] = {}
        self.code: int | None = None

    def compose(self) -> ComposeResult:
        """What is on the screen."""
        yield Header()
        yield ProgressBar(total=1.0, show_eta=False, id="bar")
        yield Label("starting", id="state")
        yield RichLog(id="log", wrap=True)
        yield Footer()

    def on_mount(self) -> None:
        """Begin."""
        self.follow()

    @work(thread=True)
    def follow(self) -> None:
        """Show what the run says until it ends."""
        process = self.process = start_run(self.words)
        assert process.stdout is not None
        for line in process.stdout:
            self.app.call_from_thread(self.told, line.rstrip("\n"))
        self.code = process.wait()
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self.ended)

    def told(self, line: str) -> None:
        """A line of the run; nobody reads it after the screen was left."""
        if not self.is_current:
            return
        self.query_one("#log", RichLog).write(line)
        if match := _STEP.search(line):
            unit, done, steps, left = match.groups()
            self.shares[unit] = int(done) / int(steps)
            units = max(self.expected(), len(self.shares))
            self.query_one("#bar", ProgressBar).update(progress=sum(self.shares.values()) / units)
            self.query_one("#state", Label).update(f"{unit}: {done} of {steps}{f'; {left} left' if left else ''}")

    def expected(self) -> int:
        """Number of units that the run was started for."""
        return len(self.app.chosen_units()) if isinstance(self.app, QSMxTApp) else 0

    def ended(self) -> None:
        """The run is over."""
        if not self.is_current:
            return
        words = "done" if self.code == 0 else f"ended with exit code {self.code}"
        if self.code == 0 and self.shares:
            self.query_one("#bar", ProgressBar).update(progress=1.0)
        self.query_one("#state", Label).update(words)

    def action_leave(self) -> None:
        """Back to the choices; a run that goes on is told to stop, and can be continued later."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        self.dismiss()


class QSMxTApp(App[int]):
    """Choices on tabs, the command below them."""

    TITLE = f"QSMxT {__version__}"
    CSS = STYLE
    BINDINGS: ClassVar[list[BindingType]] = [
        ("ctrl+r", "start", "Run"), ("ctrl+p", "plan", "Plan"), ("ctrl+q", "quit", "Quit"),
    ]  # fmt: skip
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, bids_dir: str = "", out_dir: str = "") -> None:
        super().__init__()
        self.choices = Choices(bids_dir=bids_dir, out_dir=out_dir)
        self.units: dict[str, str] = {}

    def compose(self) -> ComposeResult:
        """What is on the screen."""
        yield Header()
        with TabbedContent():
            yield from self._dataset()
            yield from self._outputs()
            yield from self._mask()
            yield from self._methods()
        yield Static("", id="command", markup=False)
        yield Static("", id="problem", markup=False)
        with Horizontal(id="actions"):
            yield Button("Plan", id="plan")
            yield Button("Run", id="run", variant="primary")
        yield Footer()

    def _dataset(self) -> ComposeResult:
        start = self.choices.bids_dir or "."
        with TabPane("Dataset", id="tab-dataset"), Horizontal():
            with VerticalScroll(id="folders"):
                yield Label("BIDS dataset")
                yield Input(self.choices.bids_dir, placeholder="folder, or choose below", id="bids_dir")
                yield DirectoryTree(start if Path(start).is_dir() else ".", id="tree")
                yield Label("Output folder")
                yield Input(self.choices.out_dir, placeholder="next to the dataset", id="out_dir")
                yield Label("Folder for intermediate results")
                yield Input(placeholder="next to the dataset", id="work_dir")
            with Vertical():
                yield Label("Subjects and their acquisitions (all, if none is marked)", id="units-title")
                yield SelectionList[str](id="units")

    def _outputs(self) -> ComposeResult:
        with TabPane("Outputs", id="tab-outputs"), VerticalScroll():
            for declared in output_switches():
                yield Checkbox(
                    f"{declared.name}: {declared.declared.help}", declared.default, id=f"out-{declared.name}"
                )
            yield Label("Preset")
            described = [(f"{name}: {text}", name) for name, text in config.preset_descriptions().items()]
            yield Select(described, value=self.choices.preset, allow_blank=False, id="preset")
            yield Label("More options, as on the command line")
            yield Input(placeholder="--nprocs 4 --inversion-rts-delta 0.2", id="more")

    def _mask(self) -> ComposeResult:
        with TabPane("Mask", id="tab-mask"), VerticalScroll():
            yield Static("", id="preset-mask", markup=False)
            yield Label("Another mask: from which image")
            yield Select([(image, image) for image in MASK_IMAGES], prompt="as the preset says", id="mask_image")
            yield Label("by which method")
            yield Select(mask_methods(), prompt="as the preset says", id="mask_method")
            yield Label("and then")
            yield Input(placeholder="close:3,largest,fill,erode:2", id="mask_more")

    def _methods(self) -> ComposeResult:
        with TabPane("Methods", id="tab-methods"), VerticalScroll():
            for key, title, offered in stages():
                yield Label(title)
                yield Select(offered, prompt="as the preset says", id=f"stage-{key}")

    def on_mount(self) -> None:
        """First look at what was given."""
        self.show()
        if self.choices.bids_dir:
            self.look()

    @on(Input.Changed)
    def typed(self, event: Input.Changed) -> None:
        """Text was changed."""
        if event.input.id:
            setattr(self.choices, event.input.id, event.value.strip())
        if event.input.id == "bids_dir":
            self.choices.participants = ()
            self.look()
        self.show()

    @on(DirectoryTree.DirectorySelected)
    def picked(self, event: DirectoryTree.DirectorySelected) -> None:
        """A folder was picked."""
        self.query_one("#bids_dir", Input).value = str(event.path)

    @on(Checkbox.Changed)
    def ticked(self, event: Checkbox.Changed) -> None:
        """An output was switched on or off."""
        self.choices.outputs[(event.checkbox.id or "").removeprefix("out-")] = event.value
        self.show()

    @on(Select.Changed)
    def selected(self, event: Select.Changed) -> None:
        """An entry of a list was chosen."""
        name = event.select.id or ""
        value = "" if event.select.is_blank() else str(event.value)
        if name.startswith("stage-"):
            self.choices.methods[name.removeprefix("stage-")] = value
        else:
            setattr(self.choices, name, value)
        self.show()

    @on(SelectionList.SelectedChanged)
    def marked(self, event: SelectionList.SelectedChanged[str]) -> None:
        """Subjects were marked."""
        self.choices.participants = tuple(sorted(event.selection_list.selected))
        self.show()

    @work(thread=True, exclusive=True)
    def look(self) -> None:
        """Find the units of the dataset; a newer look replaces an older one."""
        from qsmxt.bids.queries import find_units

        folder, worker = self.choices.bids_dir, get_current_worker()
        found: dict[str, list[str]] = {}
        title = "Subjects and their acquisitions (all, if none is marked)"
        if not (Path(folder) / "dataset_description.json").is_file():
            title = "no dataset_description.json in this folder"
        else:
            try:
                selection = find_units(folder)
                for unit in selection.units:
                    what = f"{unit.suffix}, {len(unit.echoes)} echo{'es' if len(unit.echoes) > 1 else ''}"
                    found.setdefault(unit.subject, []).append(f"{unit.name} ({what}, {unit.field_strength:g} T)")
                for rejected in selection.rejected:
                    found.setdefault(rejected.subject, []).append(f"{rejected.name}: {rejected.error}")
            except QSMxTError as error:
                title = str(error)
        if not worker.is_cancelled:
            self.call_from_thread(self.list_units, found, title)

    def list_units(self, found: dict[str, list[str]], title: str) -> None:
        """Show the units."""
        self.units = {name: subject for subject, names in found.items() for name in names}
        self.query_one("#units-title", Label).update(title)
        units = self.query_one("#units", SelectionList)
        units.clear_options()
        for subject, names in found.items():
            units.add_option((f"sub-{subject}: " + "; ".join(names), subject))
        units.highlighted = 0 if found else None

    def chosen_units(self) -> list[str]:
        """Units that a run is for."""
        wanted = self.choices.participants
        return [name for name, subject in self.units.items() if not wanted or subject in wanted]

    def show(self) -> None:
        """The command, what is wrong with it, and what the preset says."""
        with contextlib.suppress(ValueError):
            self.query_one("#command", Static).update(self.choices.command())
        self.query_one("#problem", Static).update(problem(self.choices))
        for name in ("plan", "run"):
            self.query_one(f"#{name}", Button).disabled = bool(problem(self.choices))
        sections = preset_layer(self.choices.preset).get("masking", {}).get("sections", ())
        self.query_one("#preset-mask", Static).update(f"Mask of the preset: {'  and  '.join(sections)}")
        for stage, key in preset_methods(self.choices.preset).items():
            self.query_one(f"#stage-{stage}", Select).prompt = f"as the preset says ({key})"

    @on(Button.Pressed)
    def pressed(self, event: Button.Pressed) -> None:
        """A button."""
        self.begin(["--dry-run"] if event.button.id == "plan" else [])

    def action_start(self) -> None:
        """Run."""
        self.begin([])

    def action_plan(self) -> None:
        """Show what would run."""
        self.begin(["--dry-run"])

    def begin(self, more: list[str]) -> None:
        """Go to the screen of a run."""
        if not problem(self.choices):
            self.push_screen(RunScreen([*self.choices.words(), *more]))


def run_app(bids_dir: str, out_dir: str) -> int:
    """Show the interface; prints the last command when it is left."""
    app = QSMxTApp(bids_dir, out_dir)
    app.run()
    print(app.choices.command())
    return 0
