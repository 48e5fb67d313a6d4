"""What one pytest invocation shares: its settings, its run directory and what was measured so far.

Every pytest run makes an `Invocation`; what only a measurement needs is imported and made when it is first asked for.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_openenv_scale.config.options import RUN_ARGUMENTS

from .marks import DECLARATION
from .option_values import value_sources

if TYPE_CHECKING:
    from pytest_openenv_scale.checks.subject import Subject
    from pytest_openenv_scale.config.settings import Settings
    from pytest_openenv_scale.core.target_spec import TargetSpec
    from pytest_openenv_scale.results.outcome import CheckRecord
    from pytest_openenv_scale.results.run_directory import RunDirectory
    from pytest_openenv_scale.verdict.sweep import SweepView

    from .collection import Selection
    from .progress import Progress
    from .settings import Baseline

_OWN_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class TargetParameter:
    """What `openenv_target` is parametrized with: which target, and the environment's folder where that decides.

    pytest (< 8.4) tells parameters apart by identity: `Environments` returns the same object for equal ones.
    """

    index: int = 0
    environment: Path | None = None


class Environments:
    """Finds the environment each test is about: the folder of the nearest `openenv.yaml`."""

    def __init__(self, config: pytest.Config) -> None:
        self.rootpath = config.rootpath
        self._working_directory = config.invocation_params.dir
        self._folders: dict[Path | None, Path | None] = {}
        self._parameters: dict[TargetParameter, TargetParameter] = {}

    def starts(self, test_file: Path | None) -> tuple[Path, ...]:
        """Return from where is looked upward: a file's folder, the working directory, pytest's root.

        Files of installed packages, ours among them, say nothing of an environment.
        """
        from pytest_openenv_scale.core.system import is_installed

        says_so = test_file is not None and not is_installed(test_file) and _OWN_PACKAGE not in test_file.parents
        own = (test_file.parent,) if test_file and says_so else ()
        return tuple(dict.fromkeys((*own, self._working_directory, self.rootpath)))

    def folder(self, test_file: Path | None) -> Path | None:
        """Return the environment of the tests of a file, or None; without a file that of the run."""
        from pytest_openenv_scale.targets.common.application import find_environment

        key = test_file and test_file.parent
        if key not in self._folders:
            self._folders[key] = find_environment(self.starts(test_file))
        return self._folders[key]

    def parameters(self, targets: Sequence[TargetSpec], test_file: Path) -> list[TargetParameter]:
        """Return what the tests of a file are parametrized with, one for each target."""
        from pytest_openenv_scale.targets import serves_environment

        wanted = [
            TargetParameter(index, self.folder(test_file) if serves_environment(spec) else None)
            for index, spec in enumerate(targets)
        ]
        return [self._parameters.setdefault(parameter, parameter) for parameter in wanted]


_JOIN_S = 10.0
"""Longest the process that makes the run directory may take until the others find its manifest, in seconds."""

_POLL_S = 0.02

PROBLEMS = "openenv_scale_problems"
"""In the output of an xdist worker: the problems that the controlling process shows at the end."""

_MARKS = frozenset({"scaling", "slo"})
_FIXTURES = frozenset({"scaling", "openenv_check"})


def concerns_plugin(item: pytest.Item) -> bool:
    """Whether a test has to do with this plugin at all: a mark or a fixture says so."""
    fixtures: Iterable[str] = getattr(item, "fixturenames", ())
    return not _FIXTURES.isdisjoint(fixtures) or any(mark.name in _MARKS for mark in item.iter_markers())


class Invocation:
    """The state of one pytest invocation, in one of its processes."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.pid = os.getpid()
        self.sources = value_sources(config)
        """Where anything is written: "command line", "ini", both or neither."""
        self.views: dict[tuple[str, str], SweepView] = {}
        """The last result of every test on every target."""
        self.measured: dict[str, SweepView] = {}
        """Every result, by the id of its sweep."""
        self.worker_crashed = False
        self.lacks_tests = False
        """Whether tests were collected in this process, and none that is selected measures or asks a check."""
        self.result_lines: list[str] = []
        """Lines for the end of the run that say where its results are."""
        self.problems: list[str] = []
        """Lines for the end of the run that say what could not be written or stopped."""
        self.subjects: dict[str, Subject] = {}
        """What checks know of the last server of each target, by its canonical specification."""
        self.checks: tuple[CheckRecord, ...] = ()
        """What checks found, once the run has ended."""
        self.failures: dict[int, tuple[BaseException, str]] = {}
        """Failures that were told, by identity, each with the test that it was told of first."""
        self.current_file: Path | None = None
        """The file of the test that runs."""
        self._run_location: RunLocation | None = None
        self._selection: Selection | None = None
        self._run: RunDirectory | None = None
        self._progress: Progress | None = None
        self._heeds_signals = False
        self._baseline: Baseline | None = None

    @property
    def is_worker(self) -> bool:
        """Whether this process is an xdist worker."""
        return hasattr(self.config, "workerinput")

    @cached_property
    def settings(self) -> Settings:
        """What is asked for.

        Raises:
            pytest.UsageError: it is wrong, or contradicts itself; without `sources` it cannot be.
        """
        from .settings import resolve_settings

        return resolve_settings(self.config)

    @cached_property
    def environments(self) -> Environments:
        """Which environment each test is about."""

        return Environments(self.config)

    @property
    def is_requested(self) -> bool:
        """Whether the command line asks for scaling tests, or an ini file that they are not deselected from."""
        marks: str = self.config.option.markexpr
        deselected = "not scaling" in marks
        if "scaling" in marks and not deselected:
            return True
        return "command line" in self.sources or ("ini" in self.sources and not deselected)

    @property
    def selection(self) -> Selection:
        """What the selected tests ask of a target together."""
        if self._selection is None:
            from .collection import Selection

            self._selection = Selection()
        return self._selection

    @property
    def measures(self) -> bool:
        """Whether a selected test measures or asks a check."""
        return self._selection is not None and bool(self._selection.tests)

    @property
    def shows_summary(self) -> bool:
        """Whether the end of the run shows every curve; with `-qq` it does not."""
        return self.config.get_verbosity() > -2

    @property
    def run_location(self) -> RunLocation:
        """Where the run goes; for `--openenv-results none` a folder that the end of the run removes."""
        payload = getattr(self.config, "workerinput", {}).get("openenv_scale")
        if self._run_location is None and payload:
            self._run_location = RunLocation.from_worker(payload)
        if self._run_location is None:
            from pytest_openenv_scale.results.location import default_results, new_run_id

            # A controller of xdist workers asks, whatever they run: the default is known without all the settings.
            results = self.settings.results if self.sources else default_results(self.config.rootpath)
            self._run_location = RunLocation(
                results=results or Path(tempfile.mkdtemp(prefix="openenv-scale-")),
                run_id=new_run_id(),
                kept=results is not None,
                command=self._typed_command(),
            )
        return self._run_location

    @property
    def is_run_command(self) -> bool:
        """Whether `openenv-scale run` called pytest."""
        return tuple(self.config.invocation_params.args[: len(RUN_ARGUMENTS)]) == RUN_ARGUMENTS

    def _typed_command(self) -> tuple[str, ...]:
        """Return the command line as it was typed: pytest's, or that of `openenv-scale run`."""
        arguments = tuple(map(str, self.config.invocation_params.args))
        if not self.is_run_command:
            return ("pytest", *arguments)
        from pytest_openenv_scale.config.run_command import typed_command

        return typed_command(arguments)

    @property
    def baseline(self) -> Baseline | None:
        """What sweeps are compared with; None where nothing is named."""
        if self._baseline is None and self.sources and self.settings.baseline is not None:
            from .settings import Baseline

            payload = getattr(self.config, "workerinput", {}).get("openenv_scale_baseline")
            self._baseline = Baseline(self.settings.baseline, self.settings, self.run_location.run_id, payload)
        return self._baseline

    @property
    def progress(self) -> Progress:
        """What shows life, made when it is first needed."""
        if self._progress is None:
            from .progress import make_progress

            self._progress = make_progress(self.config)
        return self._progress

    def heed_signals(self) -> None:
        """Let SIGTERM and SIGHUP end this pytest run as Ctrl-C does, until it is unconfigured."""
        if not self._heeds_signals:
            from pytest_openenv_scale.core.system import ended_like_ctrl_c

            self._heeds_signals = True
            stack = ExitStack()
            stack.enter_context(ended_like_ctrl_c())
            self.config.add_cleanup(stack.close)

    def note_problem(self, text: str) -> None:
        """Show this line at the end of the run; an xdist worker sends it to the process that has a terminal."""
        if self.is_worker:
            worker: Any = self.config
            worker.workeroutput.setdefault(PROBLEMS, []).append(text)
        else:
            self.problems.append(text)

    def read_marks(self, items: Iterable[pytest.Item]) -> None:
        """Read the marks of the selected tests, so that servers are sized before one starts."""
        items = [item for item in items if concerns_plugin(item)]
        if not items:
            return
        from .collection import make_selection, read_declaration

        for item in items:
            declared = read_declaration(item, self.settings)
            if declared is not None:
                item.stash[DECLARATION] = declared
        self._selection = make_selection(items, self.settings)

    def run_directory(self) -> RunDirectory:
        """Return the run directory; the first process that asks makes and begins it.

        Raises:
            RunError: it cannot be written.
        """
        if self._run is None:
            self._run = self._create_or_join_run()
        return self._run

    def has_begun(self) -> bool:
        """Whether any process of this invocation began to measure."""
        return self._run_location is not None and self._run_location.path.exists()

    def add_view(self, view: SweepView) -> None:
        """Keep the result of a sweep; one that was measured again replaces the older one."""
        self.views[view.test, view.target] = view
        self.measured[view.record.sweep_id] = view

    def add_sent_view(self, payload: Mapping[str, Any]) -> None:
        """Keep the result of a sweep that arrived on a test report."""
        from pytest_openenv_scale.verdict.sweep import SweepView

        self.add_view(SweepView.from_json(payload))

    def close(self) -> None:
        """Close the run directory and, in the controlling process, remove a temporary one; let go of the terminal."""
        if self._progress is not None:
            self._progress.close()
        if self._run is not None:
            self._run.close()
        if self._run_location is not None and not self._run_location.kept and not self.is_worker:
            shutil.rmtree(self._run_location.results, ignore_errors=True)

    def _create_or_join_run(self) -> RunDirectory:
        from pytest_openenv_scale.core.errors import RunError
        from pytest_openenv_scale.results.environment import fingerprint
        from pytest_openenv_scale.results.run_directory import RunDirectory

        location = self.run_location
        environment = fingerprint(self.config.rootpath)
        try:
            run = RunDirectory.create(location.results, location.run_id, kept=location.kept)
        except RunError:
            if not location.path.is_dir():
                raise
            return _join_run(location.path)
        run.begin(command=location.command, note=self.settings.note, plan=self._plan(), fingerprint=environment)
        return run

    def _plan(self) -> dict[str, Any]:
        from pytest_openenv_scale.core.target_spec import redact_target

        return {
            "tests": list(self.selection.tests),
            "targets": [redact_target(spec) for spec in self.settings.targets],
            "largest_batch": self.selection.largest_batch,
        }


def _join_run(path: Path) -> RunDirectory:
    """Take part in a run that another process is just beginning."""
    from pytest_openenv_scale.core.errors import RunError
    from pytest_openenv_scale.results.run_directory import RunDirectory

    deadline = time.monotonic() + _JOIN_S
    while True:
        try:
            return RunDirectory.open(path)
        except RunError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)


class RunLocation(NamedTuple):
    """Where the run of this invocation goes, the same in every process of it; made when it is first needed.

    A named tuple takes a fifth of the time of a frozen dataclass to define, and every pytest run defines it.
    """

    results: Path
    run_id: str
    kept: bool
    command: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The directory of the run."""
        return self.results / self.run_id

    def to_worker(self) -> dict[str, Any]:
        """Return the location as plain values that travel to an xdist worker."""
        return {
            "results": str(self.results),
            "run_id": self.run_id,
            "kept": self.kept,
            "command": list(self.command),
        }

    @classmethod
    def from_worker(cls, payload: Mapping[str, Any]) -> RunLocation:
        """Read what `to_worker` sent."""
        return cls(Path(payload["results"]), payload["run_id"], payload["kept"], tuple(payload["command"]))


INVOCATION: pytest.StashKey[Invocation] = pytest.StashKey()
"""In the stash of the configuration: what the whole invocation shares."""
