"""What `openenv-scale` can do, by command.

The docstring of what runs is the description. Only the command that is run imports anything heavy.

May import everything but plugin and suite.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from . import badge, check, hub, run, runs, servers
from .console import USAGE_ERROR


@dataclass(frozen=True, slots=True)
class Command:
    """What a command does in one line, what declares its arguments, and what runs it and returns the exit code.

    `usage_error` is the exit code where the command line is wrong.
    """

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    usage_error: int = USAGE_ERROR


COMMANDS: Mapping[str, Command] = {
    "serve": Command("serve the benchmark environment", servers.add_serve, servers.run_serve),
    "run": Command("measure how many sessions a server holds", run.add, run.run, run.USAGE_ERROR),
    "check": Command("check in seconds whether a server holds a training run", check.add, check.run),
    "self-test": Command(
        "measure how precise this client is on this machine", servers.add_self_test, servers.run_self_test
    ),
    "show": Command("show what a target would start, without starting it", servers.add_show, servers.run_show),
    "list": Command("list stored runs", runs.add_list, runs.run_list),
    "report": Command("print stored runs and rebuild their reports", runs.add_report, runs.run_report),
    "compare": Command("compare a run with a baseline", runs.add_compare, runs.run_compare),
    "history": Command("show how a figure changed over the stored runs", runs.add_history, runs.run_history),
    "badge": Command("draw how many sessions a stored run holds", badge.add_badge, badge.run_badge),
    "export": Command("write a run as raw.jsonl and summary.csv", runs.add_export, runs.run_export),
    "import": Command("make runs of raw.jsonl and summary.csv", runs.add_import, runs.run_import),
    "deploy": Command("create or update a Hugging Face Space", hub.add_deploy, hub.run_deploy),
    "push": Command("push stored runs to a dataset on the Hugging Face Hub", hub.add_push, hub.run_push),
    "pull": Command("pull runs back from a dataset on the Hugging Face Hub", hub.add_pull, hub.run_pull),
    "gc": Command("remove what killed runs left behind", servers.add_gc, servers.run_gc),
}
"""The commands by name, in the order `--help` shows them."""
