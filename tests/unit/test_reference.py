"""The documentation is held to the code: tables are complete, and links lead somewhere."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_openenv_scale.cli import COMMANDS
from pytest_openenv_scale.config.limits import LIMITS, STATISTICS
from pytest_openenv_scale.config.options import OPTIONS, Option
from pytest_openenv_scale.config.settings import field_name
from pytest_openenv_scale.plugin import hookspec
from pytest_openenv_scale.plugin.marks import ARGUMENTS
from pytest_openenv_scale.results.parts import SCHEMA
from pytest_openenv_scale.targets.common.options import TargetOptions, option_names, prefixes
from pytest_openenv_scale.targets.docker.target import DockerOptions
from pytest_openenv_scale.targets.envoy.config import ImageOptions, LocalReplicaOptions, UrlReplicaOptions
from pytest_openenv_scale.targets.local.target import LocalOptions
from pytest_openenv_scale.targets.provider.target import ProviderOptions
from pytest_openenv_scale.targets.slurm.spec import SlurmSpec
from pytest_openenv_scale.targets.spaces.settings import SpaceSpec
from pytest_openenv_scale.targets.url import UrlOptions

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference.md"
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks/README.md"]


def section(path: Path, heading: str) -> str:
    """What stands below a heading, up to the next one of its rank or above."""
    rank, _, title = heading.partition(" ")
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    _, found, rest = f"\n{text}".partition(f"\n{rank} {title}\n")
    assert found, f"{path.name} has no {heading}"
    return re.split(rf"\n#{{1,{len(rank)}}} ", rest)[0]


def rows(text: str) -> list[list[str]]:
    """The rows of all tables in a text, without their heads."""
    tables = re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE)
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for table in tables
        for line in table.splitlines()[2:]
    ]


def names(cells: Iterable[str]) -> list[str]:
    return re.findall(r"`([^`]+)`", " ".join(cells))


# Tables that are made


def options_table() -> list[str]:
    def row(option: Option) -> str:
        name = f"{option.flag} {option.metavar}" if option.metavar else option.flag
        mark = field_name(option.name)
        default = "off" if option.kind == "flag" else option.default
        cells = (
            f"`{name}`",
            f"`{mark}`" if mark in ARGUMENTS["scaling"] else "",
            f"`{default}`" if default else "–",
            option.help + (" (repeatable)" if option.kind == "repeated" else ""),
        )
        return f"| {' | '.join(cells)} |"

    return ["| option | mark | default | meaning |", "| --- | --- | --- | --- |", *map(row, OPTIONS)]


def commands_table() -> list[str]:
    lines = [f"| `openenv-scale {name}` | {command.help} |" for name, command in COMMANDS.items()]
    return ["| command | does |", "| --- | --- |", *lines]


@pytest.mark.parametrize(("name", "table"), [("options", options_table()), ("commands", commands_table())])
def test_the_reference_has_the_table_that_the_code_makes(name, table):
    """OPENENV_SCALE_WRITE_BASELINES=1 writes it."""
    text = REFERENCE.read_text(encoding="utf-8")
    match = re.search(rf"<!-- {name}: [^\n]*-->\n(.*?)(?=<!-- end -->)", text, re.DOTALL)
    assert match is not None
    if os.environ.get("OPENENV_SCALE_WRITE_BASELINES"):
        lines = "".join(f"{line}\n" for line in table)
        REFERENCE.write_text(text[: match.start(1)] + lines + text[match.end(1) :], encoding="utf-8")
        return
    assert match[1].splitlines() == table


# Tables that are written


def test_the_reference_names_every_argument_of_a_mark():
    assert names(row[0] for row in rows(section(REFERENCE, "### `scaling`"))) == list(ARGUMENTS["scaling"])
    table, others = section(REFERENCE, "### `slo`").split("\n\n| other argument")
    limits = [name for row in rows(table) for name in every_statistic(row[0])]
    selectors = [name.partition("=")[0] for name in names([others.partition("\n\n")[0]])]
    assert sorted([*limits, *selectors]) == sorted(ARGUMENTS["slo"])


def every_statistic(cell: str) -> list[str]:
    """The names of limits in a cell; a first and a last one of a phase stand for all of its statistics."""
    first, *last = names([cell])
    return [f"{first.removesuffix('p50')}{statistic}" for statistic in STATISTICS] if last else [first]


def test_the_reference_has_the_unit_of_each_limit_and_what_it_is_judged_on():
    written = {
        name: (row[1], row[2])
        for row in rows(section(REFERENCE, "### `slo`").partition("\n\n| other argument")[0])
        for name in every_statistic(row[0])
    }
    assert {name: written[name] for name in LIMITS} == {name: (kind.unit, kind.scope) for name, kind in LIMITS.items()}


@pytest.mark.parametrize(
    ("page", "heading", "kinds"),
    [
        ("reference", "### Keys of every target", [TargetOptions]),
        ("reference", "### Keys of `local`", [LocalOptions]),
        ("reference", "### Keys of a URL", [UrlOptions]),
        ("reference", "### Keys of `slurm`", [SlurmSpec]),
        ("docker", "## Keys", [DockerOptions]),
        ("envoy", "## Keys", [LocalReplicaOptions, ImageOptions, UrlReplicaOptions]),
        ("providers", "## Keys", [ProviderOptions]),
        ("spaces", "## Keys", [SpaceSpec]),
    ],
)
def test_every_key_of_a_target_is_in_the_table_of_its_page(
    page: str, heading: str, kinds: list[type[DataclassInstance]]
):
    text = section(ROOT / "docs" / f"{page}.md", heading)
    table = re.search(r"^\| key \| default \| meaning \|\n(?:\|.*\n)+", text, re.MULTILINE)
    assert table is not None
    written = names(row[0] for row in rows(table[0]))
    keys = {name for kind in kinds for name in (*option_names(kind), *(f"{prefix}.NAME" for prefix in prefixes(kind)))}
    assert len(written) == len(set(written))
    assert {*written} | {*option_names(TargetOptions)} == keys | {*option_names(TargetOptions)}
    assert {*written} <= keys


def test_the_reference_names_every_column_of_a_row():
    written = names(row[0] for row in rows(section(REFERENCE, "## Columns of `sessions.parquet`")))
    assert sorted(written) == sorted(SCHEMA.names)


def test_the_reference_names_every_hook_with_its_arguments():
    hooks = [
        f"{name}({', '.join(hook.__code__.co_varnames[: hook.__code__.co_argcount])})"
        for name, hook in vars(hookspec).items()
        if name.startswith("pytest_openenv_scale_")
    ]
    assert names(row[0] for row in rows(section(REFERENCE, "## Hooks"))) == hooks


# Links


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_to_a_file_and_a_heading(page: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        name, _, fragment = link.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), link
        if fragment:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in map(anchor, headings), link
