"""The baseline of one pytest invocation: found once, read once, and every sweep compared with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .core.baseline import Reference, find_run
from .core.manifest import RunError
from .core.settings import Settings

if TYPE_CHECKING:
    from .core.run import Run, RunDirectory
    from .core.sweep import Sweep


def check_baseline(settings: Settings) -> None:
    """Refuse a baseline of the command line that is not there, and changes to fail on without any baseline.

    What the ini file names is looked for when a test is measured: most runs of such a project measure nothing.

    Raises:
        pytest.UsageError: naming the option.
    """
    if settings.baseline is None:
        if settings.fail_on and settings.sources["fail-on"] == "command line":
            raise pytest.UsageError(
                "--openenv-fail-on: there is nothing to compare with; give --openenv-baseline REF too"
            )
    elif settings.sources["baseline"] == "command line":
        try:
            find_run(settings.baseline, settings.results)
        except RunError as error:
            raise pytest.UsageError(f"--openenv-baseline: {error}") from None


class Baseline:
    """The stored run that the sweeps of this invocation are compared with.

    It is chosen in the controlling process, before this invocation's own run (`run_id`) could be taken for the
    latest one; an xdist worker is told which it is.
    """

    def __init__(self, reference: Reference, settings: Settings, run_id: str, sent: Mapping[str, Any] | None) -> None:
        self._reference = reference
        self._settings = settings
        self._run_id = run_id
        self._sent = sent

    @cached_property
    def _found(self) -> tuple[Path | None, str]:
        """Where it is, or what keeps it from being found."""
        if self._sent is not None:
            path = self._sent["path"]
            return (Path(path) if path else None), self._sent["problem"]
        try:
            return find_run(self._reference, self._settings.results, other_than=self._run_id), ""
        except RunError as error:
            return None, str(error)

    @cached_property
    def _run(self) -> Run:
        from .core.run import load_run

        path, problem = self._found
        if path is None:
            raise RunError(problem)
        return load_run(path)

    def to_worker(self) -> dict[str, Any]:
        """Return which run it is as plain values that travel to an xdist worker."""
        path, problem = self._found
        return {"path": str(path.absolute()) if path else None, "problem": problem}

    def compare(self, sweep: Sweep, settings: Settings, run: RunDirectory, tests: Collection[str]) -> Sweep:
        """Return the sweep with its comparison, which is kept in the manifest too.

        `settings` are those of the test and `tests` all that are selected.

        Raises:
            RunError: the baseline cannot be found or read.
        """
        from .core.compare import compare_sweep
        from .core.manifest import read_manifest
        from .core.run import Run

        view = sweep.view
        found = compare_sweep(
            self._run,
            Run(run.path, read_manifest(run.path), (view,)),
            view,
            settings.fail_on,
            reference=str(self._reference),
            tests=tests,
            narrowed=[axis for axis in ("modes", "waits", "batches") if settings.sources[axis] == "command line"],
        )
        run.keep_comparison(view.record.sweep_id, found)
        return replace(sweep, view=replace(view, record=replace(view.record, comparison=found)))
