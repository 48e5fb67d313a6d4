"""Labels of targets measured in one run: those that would be the same get the differing option appended."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from .core.grammar import TargetSpec, parse_target, redact_target

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


def target_ids(specs: Sequence[TargetSpec]) -> list[str]:
    """Return what tells targets apart in a test id: their text without secrets, numbered where it repeats."""
    texts = [redact_target(spec) for spec in specs]
    return [
        text if texts.count(text) == 1 else f"{text}#{texts[: index + 1].count(text)}"
        for index, text in enumerate(texts)
    ]


def label_suffix(spec: TargetSpec, specs: Sequence[TargetSpec]) -> str:
    """Return what a target's label needs to stay unique among all targets of the run; mostly nothing.

    `slurm:nodes=2` and `slurm:nodes=4` share a label and get "-nodes2" and "-nodes4".
    """
    rivals = [other for other in specs if _family(other) == _family(spec)]
    if len(rivals) < 2:
        return ""
    suffixes = [_difference(rival, rivals) for rival in rivals]
    own = suffixes[rivals.index(spec)]
    if suffixes.count(own) == 1:
        return own
    return f"{own}-{rivals.index(spec) + 1}"


def _family(spec: TargetSpec) -> tuple[str | None, ...]:
    """Return what decides a target's label; targets of one family collide."""
    hosts = ",".join(urlsplit(url).netloc.rpartition("@")[2] for url in spec.urls)
    return (spec.name, hosts, spec.option("server"), spec.option("label"), _several_nodes(spec))


def _several_nodes(spec: TargetSpec) -> str | None:
    """Tell slurm-single from slurm-multi, which are two labels; the nodes of an allocation are not known yet."""
    nodes = spec.option("nodes") or (spec.argument or "").removeprefix("nodes=") or "1"
    return str(nodes.strip() != "1") if spec.name == "slurm" else None


def _difference(spec: TargetSpec, rivals: Sequence[TargetSpec]) -> str:
    shown = _public(spec)
    others = [_public(rival) for rival in rivals]
    differing = [key for key in shown if any(other.get(key) != shown[key] for other in others)]
    parts = [shown[key] if key == "" else f"{key}{shown[key]}" for key in differing]
    return "".join(f"-{clean}" for part in parts if (clean := _UNSAFE.sub("-", part.replace("=", "")).strip("-.")))


def _public(spec: TargetSpec) -> dict[str, str]:
    """Return the argument (under "") and the options of a target, without secrets."""
    public = parse_target(redact_target(spec))
    argument = urlsplit(public.urls[0]).path if public.urls else public.argument
    return {"": argument or "", **dict(public.options)}
