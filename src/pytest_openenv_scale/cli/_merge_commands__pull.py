"""`openenv-scale pull`: runs come back from a dataset on the Hugging Face Hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from .console import USAGE_ERROR, complain

HELP = "pull runs back from a dataset on the Hugging Face Hub"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("repo", metavar="DATASET_REPO", help="dataset on the Hub, USER/NAME")
    parser.add_argument(
        "--results", type=Path, default=Path("openenv-results"), metavar="DIR", help="where the runs go"
    )


def run(given: argparse.Namespace) -> int:
    """Pull every run of a dataset into the results directory, where it reports and compares as if measured here.

    A run that is here already stays as it is; one of the same id that was measured otherwise is told, and
    the exit code is 2.
    """
    from pytest_openenv_scale.hub.access import HubError, checked_repo_id, connect, quiet_unless_watched
    from pytest_openenv_scale.hub.pull import pull

    try:
        repo_id = checked_repo_id(given.repo, "alice/openenv-runs")
        api = connect()
        quiet_unless_watched()
        pulled = pull(api, repo_id, given.results)
    except HubError as error:
        return complain("pull", str(error))
    for path in pulled.new:
        print(f"pulled {path}")
    for path in pulled.already:
        print(f"already here: {path}")
    for path in pulled.kept:
        complain("pull", f"{path} is another run of that id and stays; move it away, or give another --results")
    return USAGE_ERROR if pulled.kept else 0
