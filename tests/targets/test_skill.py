"""Every command of docs/SKILL.md, run in its order in one folder, with the real components it names."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from docker_engine import BASE_IMAGE, engine_or_skip, server_wheels
from environments import make_environment
from hub import TOKEN, running_hub
from installed_wheel import ROOT, build_wheel
from pytest_run import environ
from slurm_cluster import slurm_or_skip

pytestmark = pytest.mark.real

TIMEOUT_S = 300.0
# What a block left in the background would keep its output open for ever where a command before its `kill` fails.
_ENDED_WITH_IT = "trap 'kill $(jobs -p) 2>/dev/null || :' EXIT\n"
_MAY_BE_UNSURE = re.compile(r"^openenv-scale (?:check|compare) .*$", re.MULTILINE)
_BLOCK = re.compile(r"^(?P<level>##+) (?P<title>[^\n]+)$|^```sh\n(?P<commands>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """The commands of one block and the headings above it."""

    section: str
    commands: str


def blocks() -> list[Block]:
    """Return the blocks of the document in their order."""
    collected: list[Block] = []
    section = ""
    for match in _BLOCK.finditer((ROOT / "docs" / "SKILL.md").read_text()):
        section = match["title"] or section
        if match["commands"]:
            collected.append(Block(section, match["commands"]))
    return collected


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The programs of an environment that holds the wheel, and the folder of that wheel."""
    folder = tmp_path_factory.mktemp("skill")
    wheel = build_wheel(folder / "wheels")
    return make_environment(
        folder / "venv", f"pytest-openenv-scale[docker,envoy,figures,spaces,uvicorn] @ {wheel.as_uri()}", "pip"
    ), wheel.parent


@contextmanager
def component(section: str, folder: Path) -> Generator[tuple[dict[str, str], dict[str, str]]]:
    """Start what a section needs; yield variables for its commands, and words to replace without an index."""
    with ExitStack() as life:
        if section == "Docker":
            host = life.enter_context(engine_or_skip())
            offline = f"docker,wheels={server_wheels()},build.BASE_IMAGE={BASE_IMAGE}"
            yield {"DOCKER_HOST": host}, {"--openenv-target docker\n": f"--openenv-target {offline}\n"}
        elif section == "SLURM":
            yield life.enter_context(slurm_or_skip(2)).environ, {}
        elif section == "Hugging Face Spaces":
            hub = life.enter_context(running_hub())
            yield hub.environ(folder / "hub", token=TOKEN), {}
        else:
            yield {}, {}


def test_the_document_has_a_block_for_every_step() -> None:
    sections = [block.section for block in blocks()]
    assert {"Install", "Run", "Deploy", "Docker", "SLURM", "Hugging Face Spaces", "Analyse", "Troubleshoot"} <= set(
        sections
    )


def test_every_command_works_as_it_stands(programs: tuple[Path, Path], tmp_path: Path) -> None:
    """None fails. That a machine which stalls leaves a verdict open, by a warning or by exit code 3, is no failure."""
    bin_, wheels = programs
    work = tmp_path / "work"
    work.mkdir()
    alone = environ() | {
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "PIP_FIND_LINKS": str(wheels),
        "XDG_STATE_HOME": f"{tmp_path}/state",
    }
    for block in blocks():
        with component(block.section, tmp_path) as (variables, otherwise):
            commands = block.commands
            for written, replacement in otherwise.items():
                assert written in commands
                commands = commands.replace(written, replacement)
            script = _ENDED_WITH_IT + _MAY_BE_UNSURE.sub(r"\g<0> || (($? == 3))", commands)
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=work,
                env={**alone, **variables},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
            assert done.returncode == 0, f"{block.section}:\n{commands}\n{done.stdout}\n{done.stderr}"
    for output in ("EXPERIMENT_LOG.md", "study/report.html", "older/raw.jsonl", "older-runs"):
        assert (work / output).exists(), output
