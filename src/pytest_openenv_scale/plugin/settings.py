"""What the options mean: frozen settings, the baseline, and mistakes found before anything starts.

Precedence is command line, mark, ini, default. A wrong value ends the run before anything starts, with one
line that names the option or the ini key.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_openenv_scale.config.arriving import check_written_together
from pytest_openenv_scale.config.figures import idle_reason
from pytest_openenv_scale.config.limits import Reference
from pytest_openenv_scale.config.options import OPTIONS, Option
from pytest_openenv_scale.config.run_command import RUN
from pytest_openenv_scale.config.settings import (
    AXES,
    RERUN_OPTIONS,
    Settings,
    Source,
    field_name,
    in_force,
)
from pytest_openenv_scale.config.values import PARSERS, ValueOrigin, join_headers
from pytest_openenv_scale.config.workload import look_in
from pytest_openenv_scale.core.errors import GrammarError, RunError, TargetError
from pytest_openenv_scale.core.system import figures_problem
from pytest_openenv_scale.core.target_spec import TargetSpec, parse_target, redact_target, redact_url
from pytest_openenv_scale.results.location import default_results, stored_results
from pytest_openenv_scale.results.references import find_run

from .option_values import command_line_values, ini_label, ini_values

if TYPE_CHECKING:
    from pytest_openenv_scale.analysis.run import Run
    from pytest_openenv_scale.core.endpoint import Target
    from pytest_openenv_scale.engine.sweep import Sweep
    from pytest_openenv_scale.results.run_directory import RunDirectory
    from pytest_openenv_scale.targets import TargetContext

_OPTIONS_BY_NAME = MappingProxyType({option.name: option for option in OPTIONS})


@dataclass(frozen=True, slots=True)
class _Layer:
    """The values of one source by option name; `origin` says where an option is written."""

    values: Mapping[str, Any]
    origin: Callable[[Option], ValueOrigin]

    def read(self, name: str) -> Any:
        origin = self.origin(_OPTIONS_BY_NAME[name])
        try:
            return PARSERS[name](self.values[name], origin)
        except GrammarError as error:
            raise pytest.UsageError(f"{origin.label}: {error}") from None


def resolve_settings(config: pytest.Config) -> Settings:
    """Read command line, ini and defaults into settings.

    Raises:
        pytest.UsageError: a value is wrong, or two options contradict each other; one line naming where.
    """
    layers = (_command_line_layer(config), _ini_layer(config), _default_layer(config))
    for layer in layers:
        if "url" in layer.values and "target" in layer.values:
            url_label, target_label = (layer.origin(_OPTIONS_BY_NAME[name]).label for name in ("url", "target"))
            raise pytest.UsageError(f"{url_label} and {target_label} both name servers; write only one of them")
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for option in OPTIONS:
        nearest = next((layer for layer in layers if option.name in layer.values), None)
        sources[option.name] = nearest.origin(option).source if nearest else "default"
        if nearest and option.name not in ("target", "url", "slo", "header"):
            values[field_name(option.name)] = nearest.read(option.name)
    servers = next(layer for layer in layers if "url" in layer.values or "target" in layer.values)
    server_option = "url" if "url" in servers.values else "target"
    sources["target"] = sources[server_option]
    del sources["url"]
    optional: dict[str, Any] = dict.fromkeys(("action", "reset", "note", "json", "outputs", "budget"))
    until_done_flag: bool = values["until_done"]
    return Settings(
        **{**optional, **in_force(values, until_done_flag=until_done_flag)},
        until_done_flag=until_done_flag,
        targets=servers.read(server_option),
        slo=tuple(limit for layer in layers if "slo" in layer.values for limit in layer.read("slo")),
        headers=join_headers([layer.read("header") for layer in layers if "header" in layer.values]),
        sources=sources,
        declared={axis: next(layer for layer in layers[1:] if axis in layer.values).read(axis) for axis in AXES},
        command_line=_rerun_values(layers[0].values),
    ).with_fitting_steps()


def _command_line_layer(config: pytest.Config) -> _Layer:
    directory = config.invocation_params.dir
    return _Layer(command_line_values(config), lambda option: ValueOrigin("command line", option.flag, directory))


def _ini_layer(config: pytest.Config) -> _Layer:
    directory = config.inipath.parent if config.inipath else config.rootpath
    return _Layer(ini_values(config), lambda option: ValueOrigin("ini", ini_label(config, option), directory))


def _default_layer(config: pytest.Config) -> _Layer:
    read = {option.name: False if option.kind == "flag" else option.default for option in OPTIONS}
    read["results"] = str(default_results(config.rootpath))
    return _Layer(
        {name: value for name, value in read.items() if value is not None},
        lambda option: ValueOrigin("default", f"the default of {option.flag}", config.rootpath),
    )


def _rerun_values(command_line: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Keep what a rerun repeats, as it was written but without secrets; a flag is an empty text."""
    texts: dict[str, tuple[str, ...]] = {}
    for name in RERUN_OPTIONS:
        if name in command_line:
            value: str | bool | list[str] = command_line[name]
            texts[name] = tuple(value) if isinstance(value, list) else (value if isinstance(value, str) else "",)
    if "proxy" in texts:
        texts["proxy"] = tuple(map(redact_url, texts["proxy"]))
    if "header" in texts:
        texts["header"] = tuple(map(_without_value, texts["header"]))
    if "url" in command_line:
        url: str = command_line["url"].strip()
        texts["url"] = (url if url.startswith("env:") else redact_target(parse_target(url)),)
    return texts


def _without_value(header: str) -> str:
    """Return a header with "…" for its value, unless that only names a variable."""
    name, colon, value = header.partition(":")
    return header if value.strip().startswith("env:") else f"{name}{colon} …"


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
            find_run(settings.baseline, _run_folders(settings))
        except RunError as error:
            raise pytest.UsageError(f"--openenv-baseline: {error}") from None


def _run_folders(settings: Settings) -> tuple[Path, ...]:
    """Return where runs that are named without a path are looked for."""
    if settings.results is None:
        return ()
    return stored_results(settings.results.parent) if settings.sources["results"] == "default" else (settings.results,)


class Baseline:
    """The stored run that the sweeps of this invocation are compared with.

    It is chosen in the controlling process, before this invocation's own run (`run_id`) could be taken for the
    latest one; an xdist worker is told which it is.
    """

    def __init__(
        self, reference: Reference, settings: Settings, run_id: str, payload: Mapping[str, Any] | None
    ) -> None:
        self._reference = reference
        self._settings = settings
        self._run_id = run_id
        self._payload = payload

    @cached_property
    def _location(self) -> tuple[Path | None, str]:
        """The directory of the baseline and no problem, or None and why it cannot be found."""
        if self._payload is not None:
            path = self._payload["path"]
            return (Path(path) if path else None), self._payload["problem"]
        try:
            return find_run(self._reference, _run_folders(self._settings), other_than=self._run_id), ""
        except RunError as error:
            return None, str(error)

    @cached_property
    def _run(self) -> Run:
        from pytest_openenv_scale.analysis.run import load_run

        path, problem = self._location
        if path is None:
            raise RunError(problem)
        return load_run(path)

    def to_worker(self) -> dict[str, Any]:
        """Return which run it is as plain values that travel to an xdist worker."""
        path, problem = self._location
        return {"path": str(path.absolute()) if path else None, "problem": problem}

    def edges(self, test: str, infrastructure: str) -> dict[tuple[str, float | None], tuple[int, ...]]:
        """Return, by mode and wait, the largest batch of a curve that passed and the smallest that failed.

        Raises:
            RunError: the baseline cannot be found or read.
        """
        return {
            (view.curve.mode, view.curve.wait): tuple(
                batch for batch in (view.verdict.feasible_max, view.verdict.infeasible_min) if batch
            )
            for sweep in self._run.sweeps
            if (sweep.test, sweep.infrastructure) == (test, infrastructure)
            for view in sweep.curves
        }

    def compare(self, sweep: Sweep, settings: Settings, run: RunDirectory, tests: Collection[str]) -> Sweep:
        """Return the sweep with its comparison, which is kept in the manifest too.

        `settings` are those of the test and `tests` all that are selected.

        Raises:
            RunError: the baseline cannot be found or read.
        """
        from pytest_openenv_scale.analysis.compare import compare_sweep
        from pytest_openenv_scale.analysis.run import Run
        from pytest_openenv_scale.results.manifest import read_manifest

        view = sweep.view
        comparison = compare_sweep(
            self._run,
            Run(run.path, read_manifest(run.path), (view,)),
            view,
            settings.fail_on,
            reference=str(self._reference),
            tests=tests,
            narrowed=[axis for axis in ("modes", "waits", "batches") if settings.sources[axis] == "command line"],
        )
        run.store_comparison(view.record.sweep_id, comparison)
        return replace(sweep, view=replace(view, record=replace(view.record, comparison=comparison)))


def check_settings(config: pytest.Config, settings: Settings) -> None:
    """Refuse arrivals that fit no test, targets that do not exist, places to write to and figures that cannot be had.

    Functions that the command line names are found in the directory it was written in.

    Raises:
        pytest.UsageError: naming the option or ini key.
    """
    on_command_line = [
        getattr(settings, name) for name in ("action", "reset") if settings.sources[name] == "command line"
    ]
    look_in(config.invocation_params.dir, *on_command_line)
    if hasattr(config, "workerinput"):
        return
    try:
        check_written_together(settings)
    except GrammarError as error:
        raise pytest.UsageError(str(error)) from None
    if settings.sources["target"] != "default":
        _check_targets(config, settings)
    if settings.results is not None and settings.sources["results"] != "default":
        _check_writable(
            settings.results, _option_label(settings, "results"), "give a folder that can be written, or none"
        )
    for name, file in (("json", settings.json), ("outputs", settings.outputs)):
        if file is not None:
            _check_writable(file, _option_label(settings, name), "give a file that can be written")
    if "figures" in settings.report and (problem := figures_problem()):
        raise pytest.UsageError(f"{_option_label(settings, 'report')}: {problem}")
    for name in ("figure-formats", "dpi"):
        idle = idle_reason(name, settings.report, settings.figure_formats, "--openenv-report")
        if settings.sources[name] == "command line" and idle:
            raise pytest.UsageError(f"--openenv-{name}: {idle}")
    check_baseline(settings)


def lines_to_write(settings: Settings) -> list[str]:
    """Return how to measure the servers that the command line names, where no test does; none where it names none."""
    if settings.sources["target"] != "command line":
        return []
    url = settings.command_line.get("url")
    servers = list(url or map(redact_target, settings.targets))
    options = [word for server in servers for word in ("--openenv-url" if url else "--openenv-target", server)]
    return [
        f"no selected test measures {' or '.join(servers)}: mark one with scaling, or write",
        f"  {shlex.join(['pytest', '--pyargs', 'pytest_openenv_scale.suite', '-m', 'scaling', *options])}",
        f"  {shlex.join([*RUN, *servers])}",
    ]


def unknown_key_problem(config: pytest.Config, warning: str) -> str | None:
    """Return which ini key there is not, where pytest warns of one that begins as ours do; else None."""
    if not (match := re.search(r"\bopenenv_\w*", warning)):
        return None
    file = config.inipath.name if config.inipath else "the ini file"
    similar = difflib.get_close_matches(match[0], [option.ini for option in OPTIONS], n=1)
    hint = f"did you mean {similar[0]}?" if similar else "pytest --help lists them all"
    return f"{match[0]} in {file}: there is no such key; {hint}"


def _option_label(settings: Settings, name: str) -> str:
    ini = settings.sources[name] == "ini"
    return f"openenv_{name}" if ini else f"--openenv-{name}"


def _check_targets(config: pytest.Config, settings: Settings) -> None:
    label = "--openenv-url" if "url" in settings.command_line else _option_label(settings, "target")
    for spec in settings.targets:
        try:
            _check_target(config, settings, spec)
        except (GrammarError, TargetError) as error:
            raise pytest.UsageError(f"{label}: {error}") from None


def _check_target(config: pytest.Config, settings: Settings, spec: TargetSpec) -> None:
    """Let the target check its own specification; nothing is started.

    Hooks are asked first; a name that is not built in may be known to one that is found later. A target named in the
    ini file is looked at by name only: most runs of such a project measure nothing and should not pay for it.
    """
    from pytest_openenv_scale.targets import KINDS, TargetContext, open_in_context

    built_in, hooks = spec.name in KINDS, config.hook.pytest_openenv_scale_target.get_hookimpls()
    if settings.sources["target"] == "ini" and (built_in or hooks):
        return
    context = TargetContext(
        config.rootpath, headers=settings.headers, rootpath=config.rootpath, network=settings.network
    )
    if ask_hooks(config, settings, spec, context) is None and (built_in or not hooks):
        open_in_context(spec, context)


def ask_hooks(config: pytest.Config, settings: Settings, spec: TargetSpec, context: TargetContext) -> Target | None:
    """Return the target that a hook has for a specification, or None."""
    hook: Any = config.hook.pytest_openenv_scale_target
    return hook(spec=spec, settings=settings, largest_batch=context.largest_batch, context=context)


def _check_writable(path: Path, label: str, advice: str) -> None:
    """Look at the nearest folder that exists, as the rest is made when it is needed."""
    folder = path if path.is_dir() else path.parent
    if path.exists() and not path.is_dir() and label.endswith("results"):
        raise pytest.UsageError(f"{label}: {path} is not a folder; {advice}")
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise pytest.UsageError(f"{label}: {folder} is not a folder; {advice}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise pytest.UsageError(f"{label}: {folder} cannot be written; {advice}")
