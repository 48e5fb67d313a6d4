"""`openenv-scale push`, `pull` and `deploy`: what goes to the Hugging Face Hub, and comes back from it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_openenv_scale.results.location import RUN_NAMES

from .console import USAGE_ERROR, add_results, named_run, print_error, results_folder

if TYPE_CHECKING:
    from pytest_openenv_scale.hub.transfer import PlannedRun, PushResult
    from pytest_openenv_scale.targets.spaces.deploy import SpaceSource


def add_deploy(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    places = parser.add_subparsers(title="places", metavar="PLACE", required=True)
    spaces = places.add_parser("spaces", help="a Hugging Face Space", description=run_deploy.__doc__)
    spaces.add_argument("repo", metavar="REPO_ID", help="the Space, USER/NAME; made where it is missing")
    source = spaces.add_mutually_exclusive_group()
    source.add_argument("--app", metavar="MODULE:ATTR", help="serve this application of the current folder")
    source.add_argument(
        "--folder",
        metavar="DIR",
        help="an environment's folder: its Dockerfile, else its openenv.yaml's app",
    )
    spaces.add_argument("--private", action="store_true", help="make it private; refuse one that is public")
    spaces.add_argument("--hardware", metavar="NAME", help="such as cpu-upgrade (default: what it has; new: cpu-basic)")
    spaces.add_argument("--workers", metavar="N", help="worker processes (WORKERS)")
    spaces.add_argument("--max-envs", metavar="N", help="sessions per worker (MAX_CONCURRENT_ENVS)")
    spaces.add_argument("--dry-run", action="store_true", help="list the files; open no network")


def run_deploy(arguments: argparse.Namespace) -> int:
    """Create or update a Space from the benchmark environment, an application of the current folder, or a folder.

    The token is the one of `hf auth login` or HF_TOKEN. Hidden files, results and caches of a folder are left out.
    """
    from pytest_openenv_scale.core.formatting import size
    from pytest_openenv_scale.core.parsing import parse_count
    from pytest_openenv_scale.hub.access import check_repo_id, connect, hide_progress_without_terminal
    from pytest_openenv_scale.targets.spaces.deploy import SpaceSource, create_or_update

    repo_id = check_repo_id(arguments.repo, "alice/my-env")
    numbers = {
        "WORKERS": (arguments.workers, "--workers"),
        "MAX_CONCURRENT_ENVS": (arguments.max_envs, "--max-envs"),
    }
    variables = {name: str(parse_count(n, what=option)) for name, (n, option) in numbers.items() if n is not None}
    source = SpaceSource.parse(app=arguments.app, folder=arguments.folder, root=Path.cwd())
    if arguments.dry_run:
        _show_source(source, repo_id, variables)
        return 0
    api = connect()
    hide_progress_without_terminal()
    deployed = create_or_update(
        api, repo_id, source, private=arguments.private, hardware=arguments.hardware, variables=variables
    )
    if not deployed.changed:
        print(f"unchanged: {deployed.url} has the files of {source.description} already")
        return 0
    verb = "created" if deployed.created else "updated"
    print(f"{verb} {deployed.url} from {source.description}: {deployed.files} files, {size(deployed.size)}")
    print(f"it builds now; measure it: pytest -m scaling --openenv-target spaces:{repo_id}")
    return 0


def _show_source(source: SpaceSource, repo_id: str, variables: Mapping[str, str]) -> None:
    from pytest_openenv_scale.core.formatting import size
    from pytest_openenv_scale.targets.spaces.deploy import README, space_files

    files = space_files(source, repo_id.partition("/")[2])
    print(f"would deploy {source.description} to {repo_id}:")
    for path, content in sorted(files.items()):
        print(f"  {size(len(content)):>8}  {path}")
    for name, value in variables.items():
        print(f"  {name}={value}")
    print(f"\n{files[README].decode().rstrip()}")


def add_pull(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("repo", metavar="DATASET_REPO", help="dataset on the Hub, USER/NAME")
    add_results(parser, "where the runs go")


def run_pull(arguments: argparse.Namespace) -> int:
    """Pull every run of a dataset into the results directory, where it reports and compares as if measured here.

    A run that is here already stays as it is; one of the same id that was measured otherwise is told, and
    the exit code is 2.
    """
    from pytest_openenv_scale.hub.access import check_repo_id, connect, hide_progress_without_terminal
    from pytest_openenv_scale.hub.transfer import pull

    repo_id = check_repo_id(arguments.repo, "alice/openenv-runs")
    api = connect()
    hide_progress_without_terminal()
    pulled = pull(api, repo_id, results_folder(arguments))
    for path in pulled.new:
        print(f"pulled {path}")
    for path in pulled.unchanged:
        print(f"already here: {path}")
    for path in pulled.different:
        print_error("pull", f"{path} is another run of that id and stays; move it away, or give another --results")
    return USAGE_ERROR if pulled.different else 0


def add_push(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help=RUN_NAMES)
    parser.add_argument("repo", metavar="DATASET_REPO", help="dataset on the Hub, USER/NAME; made where it is missing")
    parser.add_argument("--private", action="store_true", help="make it private; refuse one that is public")
    parser.add_argument("--dry-run", action="store_true", help="list the files and show the card; open no network")
    add_results(parser)


def run_push(arguments: argparse.Namespace) -> int:
    """Push runs, whole or interrupted, with a card that tells their verdicts and makes the dataset viewer work.

    Several pushes into one dataset add runs. Text of your own on the card, outside its markers, is kept. The
    token is the one of `hf auth login` or HF_TOKEN. Everything in the run directories becomes part of the
    dataset: host name, command line, the logs that were kept.
    """
    from pytest_openenv_scale.hub.access import check_repo_id, connect, hide_progress_without_terminal
    from pytest_openenv_scale.hub.transfer import plan_push, push

    repo_id = check_repo_id(arguments.repo, "alice/openenv-runs")
    planned = plan_push([named_run(name, arguments) for name in arguments.runs])
    if arguments.dry_run:
        _show_plan(planned, repo_id)
        return 0
    api = connect()
    hide_progress_without_terminal()
    _print_pushed(push(api, repo_id, planned, private=arguments.private), repo_id)
    return 0


def _show_plan(planned: Sequence[PlannedRun], repo_id: str) -> None:
    from pytest_openenv_scale.core import formatting
    from pytest_openenv_scale.hub.dataset import CARD, cells_path, cells_table, updated_card
    from pytest_openenv_scale.hub.transfer import dataset_configs

    print(f"would push to {repo_id}:")
    total = 0
    for run in planned:
        for path, source in run.sources.items():
            size = source.stat().st_size
            total += size
            print(f"  {formatting.size(size):>8}  {path}")
        if rows := cells_table(run.run).num_rows:
            print(f"  {formatting.count_of(rows, 'row'):>8}  {cells_path(run.run.run_id)}")
    print(f"  {formatting.size(total)} in all, and {CARD}, here as of a new dataset:\n")
    print(updated_card(None, repo_id, [run.section for run in planned], dataset_configs((), planned)))


def _print_pushed(pushed: PushResult, repo_id: str) -> None:
    for text, run_ids in (
        ("pushed", pushed.added),
        ("pushed the reports of", pushed.updated),
        ("already there:", pushed.unchanged),
    ):
        for run_id in run_ids:
            print(f"{text} {run_id}")
    print(f"{'new dataset' if pushed.created else 'dataset'} {pushed.url}")
    print(f"back again: openenv-scale pull {repo_id}")
