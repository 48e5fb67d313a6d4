"""The card of a dataset of runs: what its viewer needs, and a section per run between markers.

Whatever stands outside the markers is somebody's own and is kept, in the text and in the front matter.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, cast

import yaml

from pytest_openenv_scale.core.run import Run
from pytest_openenv_scale.reports import markdown
from pytest_openenv_scale.reports.overview import TITLES, entries, problems, tally

from .access import HubError
from .layout import CELLS_GLOB, RUNS, SESSIONS_GLOB

BEGIN, END = "<!-- openenv-scale: begin -->", "<!-- openenv-scale: end -->"
_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)(?:\r?\n)?---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_MARKED = re.compile(rf"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
_SECTION = re.compile(r"<!-- run ([A-Za-z0-9._-]+) -->\n.*?\n<!-- end of run \1 -->", re.DOTALL)
_TAGS = ("openenv", "benchmark", "load-testing")
_CONFIGS = (("cells", CELLS_GLOB), ("sessions", SESSIONS_GLOB))
_PICTURES = (".png", ".svg", ".jpg")


@dataclass(frozen=True)
class RunSection:
    """What the card says of one run; `files` are those of its directory, relative to it."""

    run: Run
    files: Sequence[str]


def updated_card(card: str | None, name: str, sections: Sequence[RunSection], configs: Collection[str]) -> str:
    """Return a card with these runs added or said anew; `card` is the one there is, `name` the dataset's.

    `configs` says which of cells and sessions the dataset has files of: the viewer cannot show one without.

    Raises:
        HubError: the front matter of the card there is cannot be read.
    """
    front, text = _split(card or "")
    metadata = _metadata(front, name, configs)
    marked = _MARKED.search(text)
    known = {found[1]: found[0] for found in _SECTION.finditer(marked[0])} if marked else {}
    known |= {section.run.run_id: _section(section) for section in sections}
    body = "\n".join([BEGIN, *_intro(configs), *(f"\n{known[run_id]}" for run_id in sorted(known, reverse=True)), END])
    if marked:
        text = text[: marked.start()] + body + text[marked.end() :]
    else:
        head = text.rstrip() or f"# {markdown.text(metadata['pretty_name'])}"
        text = f"{head}\n\n{body}\n"
    shown = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{shown}---\n\n{text.lstrip()}"


def _split(card: str) -> tuple[dict[str, Any], str]:
    matched = _FRONT.match(card)
    if matched is None:
        return {}, card
    try:
        front: object = yaml.safe_load(matched[1]) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 2}" if mark else ""
        raise HubError(f"the README.md of the dataset{line} has front matter that is not YAML; correct it") from None
    if not isinstance(front, dict):
        raise HubError("the README.md of the dataset has front matter that is no mapping; correct it there")
    return cast("dict[str, Any]", front), card[matched.end() :]


def _metadata(front: Mapping[str, Any], name: str, configs: Collection[str]) -> dict[str, Any]:
    """Return the front matter with ours in it: other keys, tags and configurations stay."""
    merged = {"pretty_name": name.partition("/")[2], **front}
    tags: object = front.get("tags") or []
    theirs = cast("list[object]", tags if isinstance(tags, list) else [tags])
    merged["tags"] = [*theirs, *(tag for tag in _TAGS if tag not in theirs)]
    others = [config for config in _listed(front.get("configs")) if config.get("config_name") not in dict(_CONFIGS)]
    ours: list[dict[str, Any]] = [
        {"config_name": name, "data_files": [{"split": "train", "path": glob}]}
        for name, glob in _CONFIGS
        if name in configs
    ]
    if ours and not any(config.get("default") for config in others):
        ours[0]["default"] = True
    merged["configs"] = [*ours, *others]
    if not merged["configs"]:
        del merged["configs"]
    return merged


def _listed(configs: object) -> list[dict[str, Any]]:
    found = cast("list[object]", configs) if isinstance(configs, list) else []
    return [cast("dict[str, Any]", config) for config in found if isinstance(config, dict)]


def _intro(configs: Collection[str]) -> list[str]:
    lines = [
        "Runs of pytest-openenv-scale: how many sessions OpenEnv environment servers hold at once.",
        "",
    ]
    if configs:
        says = {"cells": "one row per batch and repetition", "sessions": "one row per session"}
        lines += [*(f"- `{name}`: {says[name]}" for name, _ in _CONFIGS if name in configs), ""]
    return [
        *lines,
        "`openenv-scale pull` brings the runs back as directories to report and compare. "
        "What stands between these markers is written anew at each push.",
    ]


def _section(section: RunSection) -> str:
    run = section.run
    folder = f"{RUNS}/{run.run_id}"
    facts = f"{run.record.started_at:%Y-%m-%d %H:%M} UTC · {run.status} · {tally(run.sweeps)}"
    lines = [f"<!-- run {run.run_id} -->", f"### {markdown.text(facts)}", ""]
    lines += [f"> {markdown.text(run.record.note)}", ""] if run.record.note else []
    lines += [*(f"- **{markdown.text(problem)}**" for problem in problems(run)), ""] if problems(run) else []
    found = [
        [markdown.code(entry.test, in_table=True), *map(markdown.text, (*entry.cells, entry.verdict, entry.reason))]
        for entry in entries(run.sweeps)
    ]
    if found:
        heads = ["test", *TITLES, "verdict", "because"]
        lines += [*markdown.table(heads, found, right=("wait", "max batch", "per core")), ""]
    lines += [_where(run, folder, section.files), ""]
    lines += [f"![{PurePosixPath(file).stem}]({folder}/{file})\n" for file in _pictures(section.files)]
    # A marker in what a test is called must not end the section.
    body = "\n".join(lines[1:]).rstrip().replace("<!--", "&lt;!--")
    return f"{lines[0]}\n{body}\n<!-- end of run {run.run_id} -->"


def _where(run: Run, folder: str, files: Sequence[str]) -> str:
    said = [f"Run {markdown.code(run.run_id)}"]
    git: Any = run.record.fingerprint.get("git")
    if git and git.get("commit"):
        said.append(f"commit {markdown.code(str(git['commit'])[:12])}")
    machine: Any = run.record.fingerprint.get("machine") or {}
    said += [markdown.text(str(machine["cpu"]))] if machine.get("cpu") else []
    said.append(f"[report]({folder}/report.md)" if "report.md" in files else f"[files](tree/main/{folder})")
    return " · ".join(said)


def _pictures(files: Sequence[str]) -> list[str]:
    """Return the figures to show: of one in several formats the first of `_PICTURES`."""
    best: dict[str, str] = {}
    for suffix in _PICTURES:
        for file in files:
            if file.startswith("figures/") and file.endswith(suffix):
                best.setdefault(file.removesuffix(suffix), file)
    return [best[stem] for stem in sorted(best)]
