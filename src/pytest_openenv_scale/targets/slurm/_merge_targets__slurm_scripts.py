"""The scripts of deploy/slurm as the target uses them: the same text with its own directives and settings put in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .deployed import deploy_file

SINGLE, MULTI = "slurm/serve_single.sbatch", "slurm/serve_multi.sbatch"
SERVES = "slurm/serve_multi.sh"
"""What both hand over to."""

_SETTINGS_GO_AFTER = "set -euo pipefail"
_COMPLAINT = re.compile(r"^serve_(?:multi\.sh|(?:single|multi)\.sbatch): (.+)$", re.MULTILINE)
_SETTING = re.compile(r'export ([A-Z_]+)="?(.*?)"?')


@dataclass(frozen=True)
class SlurmRequest:
    """What a job is submitted with.

    Each of `directives` is an option of sbatch ("--nodes=2"); `knobs` are the variables that `serve_multi.sh --help`
    lists, without secrets, as Slurm keeps what is submitted. Without `envoy`, clients get the addresses of all servers.
    """

    nodes: int = 1
    directives: tuple[str, ...] = ()
    knobs: Mapping[str, str] = field(default_factory=dict[str, str])
    envoy: bool = True


def render(request: SlurmRequest) -> str:
    """Return the script to submit: that of deploy/slurm for as many nodes, with these directives and settings.

    Raises:
        TargetError: the scripts are not installed.
    """
    return _filled(request, request.directives)


def render_attached(request: SlurmRequest) -> str:
    """Return the same for bash to run on this machine, in the allocation that SLURM_JOB_ID names.

    Raises:
        TargetError: the scripts are not installed.
    """
    return _filled(request, ())


def script_name(request: SlurmRequest) -> str:
    """Return which file below deploy/ a request is made of."""
    return SINGLE if request.nodes == 1 else MULTI


def _filled(request: SlurmRequest, directives: tuple[str, ...]) -> str:
    # Slurm runs a copy of a script, which has to find the one it hands over to.
    knobs = {**request.knobs, "OPENENV_SCRIPTS": str(deploy_file(SERVES).parent)}
    if not request.envoy:
        knobs["ENVOY"] = "none"
    shebang, *lines = deploy_file(script_name(request)).read_text(encoding="utf-8").splitlines()
    # What is said to somebody who edits the file goes with the directives it explains.
    start = lines.index(_SETTINGS_GO_AFTER)
    head = [shebang, *(f"#SBATCH {directive}" for directive in directives), _SETTINGS_GO_AFTER, ""]
    settings = [f"export {name}={shlex.quote(knobs[name])}" for name in sorted(knobs)]
    return "\n".join([*head, *settings, *lines[start + 1 :], ""])


def read_connection(path: Path) -> dict[str, str] | None:
    """Return the variables of a connection file, or None while there is none: it appears when all are healthy."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return {found[1]: found[2] for line in lines if (found := _SETTING.fullmatch(line))}


def last_complaint(output: str) -> str | None:
    """Return the last thing a job said was wrong, in its output, or None."""
    found = _COMPLAINT.findall(output)
    return found[-1] if found else None
