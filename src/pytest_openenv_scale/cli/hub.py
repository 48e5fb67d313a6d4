"""`openenv-scale deploy`: an environment goes where others can reach it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .console import complain

if TYPE_CHECKING:
    from pytest_openenv_scale.targets.spaces_source import SpaceSource

HELP = "create or update a Hugging Face Space"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    places = parser.add_subparsers(title="places", metavar="PLACE", required=True)
    spaces = places.add_parser("spaces", help="a Hugging Face Space", description=run.__doc__)
    spaces.add_argument("repo", metavar="REPO_ID", help="the Space, USER/NAME; made where it is missing")
    what = spaces.add_mutually_exclusive_group()
    what.add_argument("--app", metavar="MODULE:ATTR", help="serve this application of the current folder")
    what.add_argument(
        "--folder",
        metavar="DIR",
        help="an environment's folder: its Dockerfile, else its openenv.yaml's app",
    )
    spaces.add_argument("--private", action="store_true", help="make it private; refuse one that is public")
    spaces.add_argument("--hardware", metavar="NAME", help="such as cpu-upgrade (default: what it has; new: cpu-basic)")
    spaces.add_argument("--workers", metavar="N", help="worker processes (WORKERS)")
    spaces.add_argument("--max-envs", metavar="N", help="sessions per worker (MAX_CONCURRENT_ENVS)")
    spaces.add_argument("--dry-run", action="store_true", help="list the files; open no network")


def run(given: argparse.Namespace) -> int:
    """Create or update a Space from the benchmark environment, an application of the current folder, or a folder.

    The token is the one of `hf auth login` or HF_TOKEN. Hidden files, results and caches of a folder are left out.
    """
    from pytest_openenv_scale.core.endpoint import TargetError
    from pytest_openenv_scale.core.grammar import GrammarError, parse_count
    from pytest_openenv_scale.hub.access import checked_repo_id, connect, quiet_unless_watched
    from pytest_openenv_scale.targets.spaces_deploy import create_or_update
    from pytest_openenv_scale.targets.spaces_source import SpaceSource

    try:
        repo_id = checked_repo_id(given.repo, "alice/my-env")
        asked = {"WORKERS": (given.workers, "--workers"), "MAX_CONCURRENT_ENVS": (given.max_envs, "--max-envs")}
        variables = {name: str(parse_count(n, what=what)) for name, (n, what) in asked.items() if n is not None}
        source = SpaceSource.parse(app=given.app, folder=given.folder, root=Path.cwd())
        if given.dry_run:
            _show(source, repo_id, variables)
            return 0
        api = connect()
        quiet_unless_watched()
        done = create_or_update(
            api, repo_id, source, private=given.private, hardware=given.hardware, variables=variables
        )
    except (GrammarError, TargetError) as error:
        return complain("deploy", str(error))
    from pytest_openenv_scale.core.format import size

    if not done.changed:
        print(f"unchanged: {done.url} has the files of {source.says} already")
        return 0
    what = "created" if done.created else "updated"
    print(f"{what} {done.url} from {source.says}: {done.files} files, {size(done.size)}")
    print(f"it builds now; measure it: pytest -m scaling --openenv-target spaces:{repo_id}")
    return 0


def _show(source: SpaceSource, repo_id: str, variables: Mapping[str, str]) -> None:
    from pytest_openenv_scale.core.format import size
    from pytest_openenv_scale.targets.spaces_source import README, space_files

    files = space_files(source, repo_id.partition("/")[2])
    print(f"would deploy {source.says} to {repo_id}:")
    for path, content in sorted(files.items()):
        print(f"  {size(len(content)):>8}  {path}")
    for name, value in variables.items():
        print(f"  {name}={value}")
    print(f"\n{files[README].decode().rstrip()}")
