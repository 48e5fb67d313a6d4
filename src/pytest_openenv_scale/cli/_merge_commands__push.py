"""`openenv-scale push`: runs become a dataset on the Hugging Face Hub."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .console import complain
from .runs import run_path

if TYPE_CHECKING:
    from pytest_openenv_scale.hub.push import PlannedRun, Pushed

HELP = "push stored runs to a dataset on the Hugging Face Hub"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory or id of a run, or latest")
    parser.add_argument("repo", metavar="DATASET_REPO", help="dataset on the Hub, USER/NAME; made where it is missing")
    parser.add_argument("--private", action="store_true", help="make it private; refuse one that is public")
    parser.add_argument("--dry-run", action="store_true", help="list the files and show the card; open no network")
    parser.add_argument("--results", type=Path, default=Path("openenv-results"), metavar="DIR", help="where runs are")


def run(given: argparse.Namespace) -> int:
    """Push runs, whole or interrupted, with a card that tells their verdicts and makes the dataset viewer work.

    Several pushes into one dataset add runs. Text of your own on the card, outside its markers, is kept. The
    token is the one of `hf auth login` or HF_TOKEN. Everything in the run directories becomes part of the
    dataset: host name, command line, the logs that were kept.
    """
    from pytest_openenv_scale.core.run import RunError
    from pytest_openenv_scale.hub.access import HubError, checked_repo_id, connect, quiet_unless_watched
    from pytest_openenv_scale.hub.push import plan_push, push

    try:
        repo_id = checked_repo_id(given.repo, "alice/openenv-runs")
        planned = plan_push([_known_path(name, given.results) for name in given.runs])
        if given.dry_run:
            _show(planned, repo_id)
            return 0
        api = connect()
        quiet_unless_watched()
        _tell(push(api, repo_id, planned, private=given.private), repo_id)
    except (RunError, HubError) as error:
        return complain("push", str(error))
    return 0


def _known_path(name: str, results: Path) -> Path:
    from pytest_openenv_scale.core.run import RunError

    path = run_path(name, results)
    if not path.exists():
        raise RunError(f"there is no run at {name}, and none of that id in {results}; give --results, or write latest")
    return path


def _show(planned: Sequence[PlannedRun], repo_id: str) -> None:
    from pytest_openenv_scale.core import format as text_of
    from pytest_openenv_scale.hub.card import updated_card
    from pytest_openenv_scale.hub.cells import cells_table
    from pytest_openenv_scale.hub.layout import CARD, cells_path
    from pytest_openenv_scale.hub.push import configs_of

    print(f"would push to {repo_id}:")
    total = 0
    for one in planned:
        for path, source in one.sources.items():
            size = source.stat().st_size
            total += size
            print(f"  {text_of.size(size):>8}  {path}")
        if rows := cells_table(one.run).num_rows:
            print(f"  {text_of.count_of(rows, 'row'):>8}  {cells_path(one.run.run_id)}")
    print(f"  {text_of.size(total)} in all, and {CARD}, here as of a new dataset:\n")
    print(updated_card(None, repo_id, [one.section for one in planned], configs_of((), planned)))


def _tell(pushed: Pushed, repo_id: str) -> None:
    for what, run_ids in (
        ("pushed", pushed.added),
        ("pushed the reports of", pushed.updated),
        ("already there:", pushed.unchanged),
    ):
        for run_id in run_ids:
            print(f"{what} {run_id}")
    print(f"{'new dataset' if pushed.created else 'dataset'} {pushed.url}")
    print(f"back again: openenv-scale pull {repo_id}")
