"""Every figure against the picture of it that was looked at: `tox -e figures`.

The libraries are pinned there, as each new version draws a little differently. After a change that is meant:
`OPENENV_SCALE_WRITE_BASELINES=1 tox -e figures`, then look at every picture that git shows as changed.
"""

from __future__ import annotations

import io
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import figures_samples
import pytest

from pytest_openenv_scale.analysis.study import Study
from pytest_openenv_scale.config.figures import FIGURE_FORMATS, FigureFiles
from pytest_openenv_scale.reporting.figures.content import FigureContent
from pytest_openenv_scale.reporting.figures.write import figure_contents

pytestmark = pytest.mark.figures

BASELINES = Path(__file__).parent / "golden" / "figures"
DPI = 72
LEVELS = 48
"""A pixel differs where one of its colours does by more than so many of 255 levels."""
PIXELS = 12
"""So many pixels may differ: fewer than the smallest marker has."""

PICTURES: dict[str, tuple[Callable[[Path], Study], str]] = {
    **{
        f"every-{key}": (lambda _: figures_samples.every_kind(), key)
        for key in ("scaling", "max_batch", "batch_per_core", "p99", "latency", "throughput")
    },
    **{f"doubt-{key}": (lambda _: figures_samples.in_doubt(), key) for key in ("scaling", "max_batch", "p99")},
    **{f"point-{key}": (lambda _: figures_samples.one_point(), key) for key in ("scaling", "throughput")},
    **{f"many-{key}": (lambda _: figures_samples.many_long_names(), key) for key in ("scaling", "max_batch")},
    **{
        f"fine-{key}": (lambda _: figures_samples.fine_grid(), key)
        for key in ("scaling", "p99", "latency", "throughput")
    },
    "dense-p99": (lambda _: figures_samples.dense_grid(), "p99"),
    "replicas-nodes": (lambda _: figures_samples.replicas(), "nodes"),
    "steady-over_time": (lambda _: figures_samples.steady_state(), "over_time"),
    "hours-over_time": (lambda _: figures_samples.steady_state_of_hours(), "over_time"),
    "stored-overhead": (figures_samples.stored, "overhead"),
    "stored-concurrency": (figures_samples.stored, "concurrency"),
}


@pytest.fixture(scope="module", autouse=True)
def _pinned_versions() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    pins = [str(pin).split("==") for pin in project["dependency-groups"]["figures"] if "==" in pin]
    other = [f"{name} {version(name)} instead of {pin}" for name, pin in pins if version(name) != pin]
    assert not other, f"pictures can only be compared with pinned versions ({', '.join(other)}): run tox -e figures"


def picture(content: FigureContent) -> bytes:
    from pytest_openenv_scale.reporting.figures.worker import draw

    return draw(content, FigureFiles(("png",), DPI)).files["png"]


def differing_pixels(drawn: bytes, expected: bytes) -> int | None:
    """Return how many pixels differ visibly; None where the sizes differ."""
    import numpy as np
    from PIL import Image

    one, other = (np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int) for png in (drawn, expected))
    if one.shape != other.shape:
        return None
    return int((np.abs(one - other).max(axis=2) > LEVELS).sum())


def content_of(name: str, folder: Path) -> FigureContent:
    study, key = PICTURES[name]
    return next(content for content in figure_contents(study(folder)) if content.key == key)


@pytest.mark.parametrize("name", PICTURES)
def test_a_figure_looks_as_it_did_when_it_was_looked_at(name, tmp_path):
    drawn = picture(content_of(name, tmp_path))
    baseline = BASELINES / f"{name}.png"
    if os.environ.get("OPENENV_SCALE_WRITE_BASELINES"):
        baseline.write_bytes(drawn)
        return
    different = differing_pixels(drawn, baseline.read_bytes())
    if different is None or different > PIXELS:
        (tmp_path / baseline.name).write_bytes(drawn)
        difference = "another size" if different is None else f"{different} other pixels"
        pytest.fail(f"{difference} than {baseline}: look at {tmp_path / baseline.name}", pytrace=False)


def test_every_figure_has_a_baseline_and_every_baseline_a_figure():
    from pytest_openenv_scale.reporting.figures.write import KEYS

    assert {key for _, key in PICTURES.values()} == set(KEYS)
    assert {path.stem for path in BASELINES.glob("*.png")} == set(PICTURES)
    assert sum(path.stat().st_size for path in BASELINES.iterdir()) < 1_500_000


def _with(content: FigureContent, frame: str, column: str, change: Callable[[list], list]) -> FigureContent:
    columns = dict(content.frames[frame])
    columns[column] = change(list(columns[column]))
    return replace(content, frames={**content.frames, frame: columns})


@pytest.mark.parametrize(
    ("name", "frame", "column", "change"),
    [
        ("every-scaling", "points", "success", lambda values: [values[0] - 0.04, *values[1:]]),
        ("doubt-scaling", "points", "state", lambda states: ["passes" if s == "inconclusive" else s for s in states]),
        ("doubt-max_batch", "bars", "kind", lambda kinds: ["exact" if kind == "unsure" else kind for kind in kinds]),
        ("every-p99", "tiles", "text", lambda texts: [re.sub(r"\d", "9", texts[0]), *texts[1:]]),
    ],
    ids=["a point 4 % lower", "doubt drawn as a pass", "doubt drawn as certain", "another number"],
)
def test_a_visible_change_is_found(name, frame, column, change, tmp_path):
    planted = _with(content_of(name, tmp_path), frame, column, change)
    different = differing_pixels(picture(planted), (BASELINES / f"{name}.png").read_bytes())
    assert different is None or different > PIXELS


def test_the_same_study_gives_the_same_bytes(tmp_path):
    from pytest_openenv_scale.reporting.figures.worker import draw

    content, files = content_of("point-scaling", tmp_path), FigureFiles(FIGURE_FORMATS)
    assert draw(content, files) == draw(content, files)
