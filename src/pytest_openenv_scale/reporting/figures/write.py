"""The figures of a study as files and for HTML, drawn by processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from pytest_openenv_scale.analysis.axes import CurveHistory
from pytest_openenv_scale.analysis.study import Study
from pytest_openenv_scale.config.figures import DEFAULT_FIGURES, FIGURE_FORMATS, FigureFiles
from pytest_openenv_scale.core.endpoint import ExitStatus
from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.core.files import ErrorOutput, replacing
from pytest_openenv_scale.core.own_process import command
from pytest_openenv_scale.core.system import figures_problem

from . import bars, lines, over_time, sessions
from .content import GRID, GROUND, INK, MUTED, SURFACE, DrawingRequest, FigureContent, Picture
from .sessions import StudyRows

KEYS = (
    *("scaling", "max_batch", "batch_per_core", "p99", "nodes", "latency", "overhead"),
    *("concurrency", "over_time", "throughput"),
)
"""Every figure there is, in the order reports show them."""

_PROCESSES = 2
"""The number of processes that draw at once; each takes a second to start."""


class FiguresError(RunError):
    """Figures cannot be drawn: one line saying why."""


@dataclass(frozen=True, slots=True)
class FigureSvg:
    """A figure for HTML: an SVG that refers to nothing outside and shares no id with another."""

    key: str
    title: str
    alt_text: str
    svg: str


def figure_contents(study: Study) -> list[FigureContent]:
    """Return what every figure shows that has data, in the order of `KEYS`."""
    rows = StudyRows.from_study(study)
    candidates = [
        lines.scaling_content(study),
        bars.max_batch_content(study),
        bars.batch_per_core_content(study),
        bars.heat_content(study),
        lines.nodes_content(study),
        bars.latency_content(study),
        sessions.overhead_content(study, rows),
        sessions.concurrency_content(study, rows),
        over_time.over_time_content(study),
        lines.throughput_content(study),
    ]
    return [content for content in candidates if content is not None]


def write_figures(study: Study, directory: Path, files: FigureFiles = DEFAULT_FIGURES) -> list[Path]:
    """Write KEY.FORMAT for every figure that has data and every format, and return the paths.

    Figures of an earlier rendering that have no data now are removed.

    Raises:
        FiguresError: they cannot be drawn.
        RunError: a file cannot be written.
    """
    drawn = _draw_once(study, files)
    written: list[Path] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for content, picture in drawn:
            for kind in files.formats:
                written.append(directory / f"{content.key}.{kind}")
                with replacing(written[-1]) as file:
                    file.write(_file_content(content, picture, kind))
        for key in set(KEYS) - {content.key for content, _ in drawn}:
            for kind in FIGURE_FORMATS:
                (directory / f"{key}.{kind}").unlink(missing_ok=True)
    except FileExistsError as error:
        raise RunError(f"figures cannot be written: {error.filename} is a file, not a folder") from None
    except OSError as error:
        raise RunError(f"figures cannot be written: {error.filename or directory}: {error.strerror}") from None
    return written


def _file_content(content: FigureContent, picture: Picture, kind: str) -> bytes:
    return for_file(picture.svg, content.alt_text).encode() if kind == "svg" else picture.files[kind]


def write_history(curves: Sequence[CurveHistory], path: Path, dpi: int = DEFAULT_FIGURES.dpi) -> None:
    """Draw the history into a file of a figure's format, which its suffix names.

    Raises:
        FiguresError: it cannot be drawn.
        OSError: the file cannot be written.
    """
    history = lines.history_content(curves)
    kind = path.suffix.removeprefix(".")
    (picture,) = draw_all([history], FigureFiles((kind,), dpi))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(_file_content(history, picture, kind))


def figure_svgs(study: Study) -> Mapping[str, FigureSvg]:
    """Return the figures that have data by key, in order, to stand in one HTML page.

    Raises:
        FiguresError: they cannot be drawn.
    """
    return {
        content.key: FigureSvg(
            content.key, content.title, content.alt_text, for_html(picture.svg, content.key, content.alt_text)
        )
        for content, picture in _draw_once(study, FigureFiles(("svg",)))
    }


_last_drawing: tuple[Study, FigureFiles, list[tuple[FigureContent, Picture]]] | None = None
"""The study drawn last and its pictures, so that files and HTML of one study are drawn once."""


def _draw_once(study: Study, files: FigureFiles) -> list[tuple[FigureContent, Picture]]:
    global _last_drawing
    if _last_drawing is None or not _same_runs(_last_drawing[0], study) or not _holds(_last_drawing[1], files):
        # Said before rows are read for figures that nobody can draw.
        if study.curves and (problem := figures_problem()):
            raise FiguresError(problem)
        contents = figure_contents(study)
        # The page of the same study shows its figures as SVG, whatever their files are.
        files = FigureFiles(tuple(dict.fromkeys(("svg", *files.formats))), files.dpi)
        _last_drawing = study, files, list(zip(contents, draw_all(contents, files), strict=True))
    return _last_drawing[2]


def _holds(drawn: FigureFiles, files: FigureFiles) -> bool:
    """Say whether these files are among those drawn."""
    return set(files.formats) <= set(drawn.formats) and ("png" not in files.formats or files.dpi == drawn.dpi)


def _same_runs(study: Study, other: Study) -> bool:
    """Say whether two studies hold the very same run objects; joining runs twice makes two equal studies."""
    return len(study.runs) == len(other.runs) and all(a is b for a, b in zip(study.runs, other.runs, strict=True))


def draw_all(contents: Sequence[FigureContent], files: FigureFiles = DEFAULT_FIGURES) -> list[Picture]:
    """Draw figures in processes of their own and return the pictures in the same order.

    Raises:
        FiguresError: a process fails or ends.
    """
    if not contents:
        return []
    count = min(_PROCESSES, os.cpu_count() or 1, len(contents))
    processes: list[_DrawingProcess] = []
    # matplotlib keeps what it knows of fonts; not in the home of whoever runs tests, unless that was asked for.
    caches = tempfile.TemporaryDirectory(prefix="openenv-figures-", ignore_cleanup_errors=True)
    try:
        processes += (_DrawingProcess(caches.name) for _ in range(count))
        for at, process in enumerate(processes):
            process.begin(contents[at::count], files)
        pictures = {picture.key: picture for process in processes for picture in process.pictures()}
    except OSError as error:
        raise FiguresError(f"figures cannot be drawn: {error.strerror or error}") from None
    finally:
        for process in processes:
            process.stop()
        caches.cleanup()
    return [pictures[content.key] for content in contents]


class _DrawingProcess:
    """One process that draws, and the parent's end of its pipe."""

    def __init__(self, caches: str) -> None:
        ours, theirs = Pipe()
        self._pipe: Connection = ours
        self._errors = ErrorOutput()
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
        self._popen = subprocess.Popen(
            command(f"{__package__}.worker", str(theirs.fileno())),
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors.file,
            env={"MPLCONFIGDIR": caches, **inherited, "MPLBACKEND": "agg"},
        )
        theirs.close()

    def begin(self, contents: Sequence[FigureContent], files: FigureFiles) -> None:
        """Send the figures to draw."""
        self._pipe.send(DrawingRequest(tuple(sys.path), tuple(contents), files))

    def pictures(self) -> list[Picture]:
        """Wait for the pictures.

        Raises:
            FiguresError: the process ended, or cannot draw one of them.
        """
        try:
            answer: list[Picture] | str = self._pipe.recv()
        except EOFError:
            how = ExitStatus.from_returncode(self._popen.wait())
            why = f": {reason}" if (reason := self._errors.reason()) else ""
            raise FiguresError(f"figures cannot be drawn: the process that draws {how}{why}") from None
        if isinstance(answer, str):
            raise FiguresError(f"figures cannot be drawn: {answer}")
        return answer

    def stop(self) -> None:
        """End the process, finished or not."""
        self._pipe.close()
        self._popen.kill()
        self._popen.wait()
        self._errors.close()


_PROLOG = re.compile(r"^.*?(?=<svg )", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_STYLE = re.compile(r"\s*<defs>\s*<style[^>]*>.*?</style>\s*</defs>", re.DOTALL)
_OPENING = re.compile(r'<svg [^>]*viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>')
_FONT = re.compile(r"(font-family: |font: [^;\"]*?(?=')|px )('DejaVu Sans'[^;\"]*)")
_ID = re.compile(r'(\bid="|xlink:href="#|url\(#)([\w.\-]+)')
_NUMBERS = re.compile(r'(?<= )(?:d|x|y|transform)="[^"]*"')
_DIGITS = re.compile(r"(\.\d\d)\d+")
_TEXT = re.compile(r"(<text [^>]*>)([^<]*)(?=</text>)")
_GROUND = re.compile(rf"fill: {GROUND}(?![0-9a-f])")

_FAMILY = "'DejaVu Sans', Verdana, sans-serif"
_LINES = "stroke-linejoin: round; stroke-linecap: butt"


def for_file(svg: str, alt_text: str) -> str:
    """Return an SVG that stands alone: on paper, without a date or anything outside."""
    return f'<?xml version="1.0" encoding="utf-8"?>\n{_embeddable(svg, alt_text, "figure-", _FAMILY)}'


def for_html(svg: str, key: str, alt_text: str) -> str:
    """Return an SVG for a page: no ground of its own, text and lines in the colour of the text around it.

    The page may set `--figure-surface` (what hollow markers stand on) and `--figure-font`.
    """
    family = f"var(--figure-font, {_FAMILY})"
    page = _embeddable(svg, alt_text, f"figure-{key}-", family)
    page = _GROUND.sub("fill: none", page)
    page = page.replace(f"stroke: {GROUND}", "stroke: none")
    page = page.replace(SURFACE, "var(--figure-surface, Canvas)")
    page = page.replace(f"fill: {MUTED}", "fill: currentColor; fill-opacity: 0.78")
    page = page.replace(f"stroke: {GRID}", "stroke: currentColor; stroke-opacity: 0.14")
    page = page.replace(f"fill: {GRID}", "fill: currentColor; fill-opacity: 0.14")
    return page.replace(MUTED, "currentColor").replace(INK, "currentColor")


def _embeddable(svg: str, alt_text: str, prefix: str, family: str) -> str:
    """Return the SVG element without metadata and styles, with a title, ids under `prefix` and a flexible width."""
    bare = _STYLE.sub("", _METADATA.sub("", _PROLOG.sub("", svg, count=1)), count=1)
    bare = _ID.sub(rf"\g<1>{prefix}\g<2>", bare)
    bare = _FONT.sub(lambda match: match[1] + family, bare)
    # A page makes one blank of several, also of those that keep a sign off its marker.
    bare = _TEXT.sub(lambda match: match[1] + match[2].replace("  ", "\xa0 "), bare)
    # A hundredth of a point is finer than any screen or paper.
    bare = _NUMBERS.sub(lambda match: _DIGITS.sub(r"\1", match[0]), bare)
    label = f"{prefix}title"

    def opening(match: re.Match[str]) -> str:
        width, height = match[1], match[2]
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" xml:space="preserve"'
            f' viewBox="0 0 {width} {height}" width="100%" style="max-width: {float(width) * 4 / 3:.0f}px; {_LINES}"'
            f' role="img" aria-labelledby="{label}">\n <title id="{label}">{escape(alt_text)}</title>'
        )

    return _OPENING.sub(opening, bare, count=1)
