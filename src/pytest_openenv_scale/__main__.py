"""The `openenv-scale` command; `python -m pytest_openenv_scale` is the same."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

if TYPE_CHECKING:
    from .core.run import Run
    from .core.slo import Slo
    from .reports import Line

PROGRAM = "openenv-scale"
USAGE_ERROR = 2
WIDTH = 120
"""Columns where standard output is no terminal and COLUMNS is not set."""

_STYLES = {"bold": "1", "light": "2", "red": "31", "green": "32", "yellow": "33"}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 2 where the input is wrong, 1 where a self-test fails."""
    given = _parser().parse_args(arguments)
    try:
        code: int = given.run(given)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader has seen enough; nothing must be written to it any more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=PROGRAM, description="How many sessions does an OpenEnv environment server hold at once?")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {version('pytest-openenv-scale')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    _add_serve(commands.add_parser("serve", help="serve the benchmark environment", description=_serve.__doc__))
    _add_self_test(
        commands.add_parser("self-test", help="measure what this client resolves here", description=_self_test.__doc__)
    )
    _add_report(commands.add_parser("report", help="report stored runs again", description=_report.__doc__))
    _add_gc(commands.add_parser("gc", help="remove what killed runs left behind", description=_gc.__doc__))
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", help="address to listen on (HOST, else 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on, 0 for a free one (PORT, else 8000)")
    parser.add_argument("--workers", type=int, help="worker processes (WORKERS, else one per core)")
    parser.add_argument(
        "--max-envs", type=int, help="sessions per worker, 0 for no limit (MAX_CONCURRENT_ENVS, else no limit)"
    )
    parser.add_argument("--server", default="hypercorn", help="hypercorn or uvicorn (default: hypercorn)")
    parser.set_defaults(run=_serve)


def _serve(given: argparse.Namespace) -> int:
    """Serve the benchmark environment until it is stopped; what is not given is read from the environment."""
    from .server.serve import serve

    return serve(given.host, given.port, given.workers, given.max_envs, given.server)


def _add_self_test(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--modes", default="ws,http", metavar="LIST", help="ws, http or both (default: ws,http)")
    parser.add_argument("--max-batch", default="16384", metavar="N", help="largest batch to try (default: 16384)")
    parser.add_argument("--wait", default="1s", metavar="TIME", help="what each step takes (default: 1s)")
    parser.add_argument("--processes", default="auto", metavar="N", help="load processes (default: auto)")
    parser.add_argument("--time", default="120s", metavar="TIME", help="end after about so long (default: 120s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found to this file as well")
    parser.set_defaults(run=_self_test)


def _self_test(given: argparse.Namespace) -> int:
    """Find the batch up to which this client adds at most 5 ms (p50) and 40 ms (p99) to a server's latency here."""
    from .core.grammar import GrammarError
    from .core.load import LoadError
    from .selftest.command import asked_for, run_self_test
    from .selftest.null_process import SelfTestError

    try:
        return run_self_test(asked_for(given), given.json)
    except (GrammarError, LoadError, SelfTestError) as error:
        return _complain("self-test", str(error))


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help="directory or id of a run (default: the latest)")
    parser.add_argument("--all", action="store_true", help="every run in the results directory")
    parser.add_argument("--results", type=Path, default=Path("openenv-results"), metavar="DIR", help="where runs are")
    parser.add_argument(
        "--slo",
        action="append",
        default=[],
        metavar="LIMIT",
        help="judge by this limit as well, for example total_p99<=2s; the run itself is left as it is; repeatable",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="write the reports there, not into the run")
    parser.set_defaults(run=_report)


def _report(given: argparse.Namespace) -> int:
    """Print stored runs and rebuild their reports from the rows; the exit code does not tell the verdict."""
    from .core.grammar import GrammarError
    from .core.run import RunError
    from .core.slo import Slo, merge, parse_slo_expression

    try:
        # The last expression wins where a limit is named twice.
        limits = merge(*(Slo((parse_slo_expression(text),)) for text in reversed(given.slo)))
        paths = _run_paths(given)
    except (GrammarError, RunError) as error:
        return _complain("report", str(error))
    code = 0
    for path in paths:
        try:
            _report_run(path, limits, given.output, several=len(paths) > 1)
        except RunError as error:
            code = _complain("report", str(error))
    return code


def _run_paths(given: argparse.Namespace) -> list[Path]:
    from .core.manifest import run_paths
    from .core.run import RunError, latest_run

    if given.all and given.runs:
        raise RunError("--all and a run are given; write one of them")
    if given.all:
        found = run_paths(given.results)
        return found or [latest_run(given.results)]
    return [_run_path(name, given.results) for name in given.runs] or [latest_run(given.results)]


def _run_path(name: str, results: Path) -> Path:
    path = Path(name)
    return path if path.exists() or not (results / name).is_dir() else results / name


def _report_run(path: Path, limits: Slo, output: Path | None, *, several: bool) -> None:
    from .core.run import RunError, load_run
    from .reports import run_lines, write_reports

    run = load_run(path)
    if limits.limits:
        run = _judged_again(run, limits)
    lines = run_lines(run, width=shutil.get_terminal_size((WIDTH, 24)).columns, encoding=sys.stdout.encoding)
    _print(lines, sys.stdout)
    if output is not None:
        folder = output / run.run_id if several else output
        _told(write_reports(run, directory=folder))
    elif not limits.limits:
        try:
            _told(write_reports(run))
        except RunError as error:
            # What was asked for stands on the terminal; a run on a read-only disk stays as it is.
            _complain("report", str(error))


def _judged_again(run: Run, limits: Slo) -> Run:
    """Return the run with these limits added to those it was judged by; they win over limits of the same name."""
    from dataclasses import replace

    from .core.slo import merge
    from .core.view import view_sweep

    views = [
        view_sweep(
            replace(view.record, slos=tuple(merge(limits, slo) for slo in view.record.slos)),
            view.summaries,
        )
        for view in run.sweeps
    ]
    return replace(run, sweeps=tuple(views))


def _add_gc(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="only this kind, docker or folders (default: all)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed and leave it")
    parser.set_defaults(run=_gc)


def _gc(given: argparse.Namespace) -> int:
    """Remove what runs left behind that were killed (SIGKILL, a crash); what a living run uses is left alone.

    Exit code 2 where a kind that is named cannot be looked for, else 0.
    """
    from .core.grammar import nearest
    from .gc import COLLECTORS, collect

    for kind in given.kinds:
        if kind not in COLLECTORS:
            return _complain("gc", f"there is no kind {kind!r}{nearest(kind, COLLECTORS)}")
    found = collect(given.kinds, dry_run=given.dry_run)
    for line in found.lines:
        print(f"{'would remove' if given.dry_run else 'removed'} {line}")
    if not found.lines and not (given.kinds and found.unreached):
        print("nothing left behind")
    for kind, why in found.unreached.items():
        if given.kinds:
            _complain("gc", f"{kind}: {why}")
        else:
            print(f"{kind}: not looked for: {why}")
    return USAGE_ERROR if given.kinds and found.unreached else 0


def _told(paths: Sequence[Path]) -> None:
    print(f"written: {', '.join(map(str, paths))}\n")


def _print(lines: Sequence[Line], stream: TextIO) -> None:
    coloured = stream.isatty() and not os.environ.get("NO_COLOR")
    for text, markup in lines:
        codes = ";".join(_STYLES[name] for name, wanted in markup.items() if wanted)
        print(f"\x1b[{codes}m{text}\x1b[0m" if coloured and codes else text, file=stream)
    print(file=stream)


def _complain(command: str, problem: str) -> int:
    sys.stdout.flush()
    print(f"{PROGRAM} {command}: {problem}", file=sys.stderr)
    return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
