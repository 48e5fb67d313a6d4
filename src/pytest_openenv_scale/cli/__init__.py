"""What `openenv-scale` can do, by command.

The docstring of what runs is the description. Only the command that is run imports anything heavy.

May import everything but plugin and suite.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from . import check, hub, runs, servers


@dataclass(frozen=True, slots=True)
class Command:
    """What a command does in one line, what declares its arguments, and what runs it and returns the exit code."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


COMMANDS: Mapping[str, Command] = {
    "serve": Command(servers.SERVE_HELP, servers.add_serve, servers.run_serve),
    "check": Command(check.HELP, check.add, check.run),
    "self-test": Command(servers.SELF_TEST_HELP, servers.add_self_test, servers.run_self_test),
    "show": Command(servers.SHOW_HELP, servers.add_show, servers.run_show),
    "report": Command(runs.REPORT_HELP, runs.add_report, runs.run_report),
    "compare": Command(runs.COMPARE_HELP, runs.add_compare, runs.run_compare),
    "history": Command(runs.HISTORY_HELP, runs.add_history, runs.run_history),
    "export": Command(runs.EXPORT_HELP, runs.add_export, runs.run_export),
    "import": Command(runs.IMPORT_HELP, runs.add_import, runs.run_import),
    "deploy": Command(hub.DEPLOY_HELP, hub.add_deploy, hub.run_deploy),
    "push": Command(hub.PUSH_HELP, hub.add_push, hub.run_push),
    "pull": Command(hub.PULL_HELP, hub.add_pull, hub.run_pull),
    "gc": Command(servers.GC_HELP, servers.add_gc, servers.run_gc),
}
"""The commands by name, in the order `--help` shows them."""
