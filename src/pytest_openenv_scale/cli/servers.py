"""`openenv-scale serve`, `show`, `gc` and `self-test`: servers started, shown, removed, or replaced by a null one."""

from __future__ import annotations

import argparse
from pathlib import Path

from .console import USAGE_ERROR, print_error

_LARGEST_BATCH = 128


def add_show(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("specs", nargs="+", metavar="SPEC", help="a target, as --openenv-target takes it")
    parser.add_argument(
        "--batch",
        type=int,
        default=_LARGEST_BATCH,
        metavar="N",
        help=f"the largest batch, to which backlogs and breakers are sized (default: {_LARGEST_BATCH})",
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="from where openenv.yaml is looked for upward (default: the current folder)",
    )
    _add_modules(parser)


def _add_modules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-p", action="append", default=[], metavar="MODULE", help="a module with the hook pytest_openenv_scale_target"
    )


def run_show(arguments: argparse.Namespace) -> int:
    """Print the commands, scripts and configurations a target would start, without secrets; nothing is started.

    Exit code 2 where a target cannot be read, or what it names is not there.
    """
    from pytest_openenv_scale.core.parsing import parse_count
    from pytest_openenv_scale.core.target_spec import parse_target, redact_target
    from pytest_openenv_scale.core.text import redact_text
    from pytest_openenv_scale.targets import capability, find_target
    from pytest_openenv_scale.targets.common.application import find_environment
    from pytest_openenv_scale.targets.common.options import TargetContext

    root = (arguments.root or Path.cwd()).resolve()
    environment = find_environment((root,))
    context = TargetContext(
        environment or root,
        parse_count(arguments.batch, what="--batch"),
        rootpath=root,
        searched=() if environment else (root,),
    )
    targets = [(spec, find_target(spec, context, arguments.p)) for spec in map(parse_target, arguments.specs)]
    described = [(spec, capability(target, "describe", "cannot be shown")()) for spec, target in targets]
    for spec, parts in described:
        print(f"### {redact_text(redact_target(spec))}")
        for title, text in parts:
            print(f"\n## {title}\n\n{text}")
        print()
    return 0


def add_gc(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "kinds",
        nargs="*",
        metavar="KIND",
        help="only this: docker, slurm, spaces or folders, or with -p a target (default: all of the four)",
    )
    _add_modules(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed and leave it")


def run_gc(arguments: argparse.Namespace) -> int:
    """Remove what runs left behind that were killed (SIGKILL, a crash); what a living run uses is left alone.

    Exit code 2 where a leftover cannot be removed, or a kind that is named cannot be looked for, else 0.
    """
    from pytest_openenv_scale.core.errors import GrammarError
    from pytest_openenv_scale.core.parsing import suggestion
    from pytest_openenv_scale.core.target_spec import parse_target
    from pytest_openenv_scale.targets import capability, find_target
    from pytest_openenv_scale.targets.common.options import TargetContext
    from pytest_openenv_scale.targets.gc import FINDERS, Collector, collect

    others: dict[str, Collector] = {}
    for kind in arguments.kinds:
        if kind in FINDERS:
            continue
        if not arguments.p:
            raise GrammarError(f"there is no kind {kind!r}{suggestion(kind, FINDERS)}")
        target = find_target(parse_target(kind), TargetContext(Path.cwd()), arguments.p)
        others[kind] = capability(target, "collect", "leaves nothing that could be collected")
    collected = collect(arguments.kinds, dry_run=arguments.dry_run, others=others)
    for line in collected.lines:
        print(f"{'would remove' if arguments.dry_run else 'removed'} {line}")
    for problem in collected.problems:
        print_error("gc", problem)
    if not (collected.lines or collected.problems) and not (arguments.kinds and collected.unreached):
        print("nothing left behind")
    for kind, reason in collected.unreached.items():
        if arguments.kinds:
            print_error("gc", f"{kind}: {reason}")
        else:
            print(f"{kind}: not looked for: {reason}")
    return USAGE_ERROR if collected.problems or (arguments.kinds and collected.unreached) else 0


def add_self_test(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--modes", default="ws,http", metavar="LIST", help="ws, http or both (default: ws,http)")
    parser.add_argument("--max-batch", default="16384", metavar="N", help="largest batch to try (default: 16384)")
    parser.add_argument("--wait", default="1s", metavar="TIME", help="what each step takes (default: 1s)")
    parser.add_argument("--processes", default="auto", metavar="N", help="load processes (default: auto)")
    parser.add_argument("--time", default="120s", metavar="TIME", help="end after about so long (default: 120s)")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write what was found to this file as well; - is standard output, the rest goes to standard error",
    )


def run_self_test(arguments: argparse.Namespace) -> int:
    """Find the batch up to which this client adds at most 5 ms (p50) and 40 ms (p99) to a server's latency here."""
    from pytest_openenv_scale.selftest.command import read_options, run_self_test

    return run_self_test(read_options(arguments), arguments.json)


def add_serve(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from pytest_openenv_scale.server.settings import add_serve_options

    add_serve_options(parser)


def run_serve(arguments: argparse.Namespace) -> int:
    """Serve the benchmark environment until it is stopped; what is not given is read from the environment."""
    import inspect

    from pytest_openenv_scale.server.serve import serve

    return serve(**{name: getattr(arguments, name) for name in inspect.signature(serve).parameters})
