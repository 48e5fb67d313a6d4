"""Figures as files and for HTML: drawn elsewhere, self-contained, the same every time."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from study_samples import a_study, sample

from pytest_openenv_scale.analysis.study import join_runs
from pytest_openenv_scale.config.figures import FIGURE_FORMATS, FigureFiles
from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.reporting.figures import FiguresError, figure_svgs, write, write_figures
from pytest_openenv_scale.reporting.figures import content as figures_content
from pytest_openenv_scale.reporting.figures.content import FigureContent, Picture

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def study():
    return a_study(sample("local-uvicorn", {8: (1.0, 0.01), 32: (0.6, 0.2)}), sample("https://a<b>&c.example"))


KEYS = ["scaling", "max_batch", "p99"]
"""The figures that are drawn here; all of them are in `test_figures_baselines.py`."""


@pytest.fixture(scope="module", autouse=True)
def _three_figures():
    all_figures = write.figure_contents
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            write, "figure_contents", lambda study: [figure for figure in all_figures(study) if figure.key in KEYS]
        )
        yield


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory):
    """The figures of a study as files: what the tests of this module wait for."""
    path = tmp_path_factory.mktemp("figures")
    (path / "nodes.svg").write_text("of an earlier rendering")
    (path / "mine.txt").write_text("of somebody else")
    write_figures(study, path, FigureFiles(FIGURE_FORMATS, dpi=40))
    return path


@pytest.mark.parametrize(("kind", "beginning"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_every_figure_is_written_in_every_format_asked_for(folder, kind, beginning):
    assert sorted(path.stem for path in folder.glob(f"*.{kind}")) == sorted(KEYS)
    assert all(path.read_bytes().startswith(beginning) for path in folder.glob(f"*.{kind}"))


def test_a_png_has_the_dots_asked_for(folder):
    width = int.from_bytes((folder / "scaling.png").read_bytes()[16:20])
    assert width == 9 * 40


def test_a_pdf_embeds_its_fonts_as_truetype_and_tells_no_time(folder):
    pdf = (folder / "scaling.pdf").read_bytes()
    assert b"/Subtype /Type0" in pdf or b"/Subtype /TrueType" in pdf
    assert b"/Subtype /Type3" not in pdf
    assert b"CreationDate" not in pdf


def test_a_figure_that_has_no_data_now_is_removed_and_nothing_else(folder):
    assert not (folder / "nodes.svg").exists()
    assert (folder / "mine.txt").read_text() == "of somebody else"


def test_a_file_is_one_svg_that_says_in_words_what_it_shows(folder):
    for path in folder.glob("*.svg"):
        root = ET.fromstring(path.read_text())
        assert root.tag == f"{SVG}svg"
        assert root.get("viewBox")
        title = root.find(f"{SVG}title")
        assert title is not None
        assert root.get("aria-labelledby") == title.get("id")


def test_nothing_refers_to_the_outside_or_tells_the_time(folder, study):
    texts = [path.read_text() for path in folder.glob("*.svg")] + [one.svg for one in figure_svgs(study).values()]
    for text in texts:
        assert set(re.findall(r"https?://[^\"'\s<)]+", text)) - {"https://a&lt;b&gt;&amp;c.example"} <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
            *re.findall(r"https://a[^\"'\s<)]*", text),
        }
        assert "<metadata" not in text
        assert "<style" not in text
        assert "<script" not in text
        assert "matplotlib.org" not in text
        assert not re.search(r"20\d\d-\d\d-\d\d", text)


def test_no_two_figures_of_a_page_share_an_id_and_every_reference_is_found(study):
    svgs = {key: figure.svg for key, figure in figure_svgs(study).items()}
    ids = [name for svg in svgs.values() for name in re.findall(r'\bid="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))
    for key, svg in svgs.items():
        own = set(re.findall(r'\bid="([^"]+)"', svg))
        assert all(name.startswith(f"figure-{key}-") for name in own)
        assert {*re.findall(r'href="#([^"]+)"', svg), *re.findall(r"url\(#([^)]+)\)", svg)} <= own


def test_on_a_page_text_and_lines_have_the_colour_of_the_page(study):
    for figure in figure_svgs(study).values():
        assert figure.svg.startswith("<svg ")
        assert "currentColor" in figure.svg
        # matplotlib names a colour also for lines it does not draw.
        drawn = figure.svg.replace("stroke: #000000; stroke-opacity: 0;", "")
        fixed = (
            figures_content.INK,
            figures_content.MUTED,
            figures_content.GRID,
            figures_content.SURFACE,
            figures_content.GROUND,
            "#000000",
        )
        assert [colour for colour in fixed if colour in drawn] == []
        texts = list(ET.fromstring(figure.svg).iter(f"{SVG}text"))
        assert texts
        assert all("--figure-font" in (text.get("style") or "") for text in texts)


def test_blanks_that_keep_a_sign_off_its_marker_stay_on_a_page(study):
    texts = ["".join(text.itertext()) for text in ET.fromstring(figure_svgs(study)["scaling"].svg).iter(f"{SVG}text")]
    assert "\xa0 ✕" in texts
    assert not any("  " in text for text in texts)


def test_what_people_wrote_is_escaped(study):
    for figure in figure_svgs(study).values():
        ET.fromstring(figure.svg)
        assert "a<b>" not in figure.svg


def test_the_same_study_is_drawn_once_for_files_and_html(study, folder, monkeypatch):
    monkeypatch.setattr(write, "draw_all", lambda contents, files: pytest.fail("drawn again"))
    assert list(figure_svgs(study)) == KEYS
    assert list(figure_svgs(join_runs(study.runs))) == KEYS


def test_runs_that_were_judged_again_are_drawn_again(study, folder, monkeypatch):
    drawn_keys: list[str] = []

    def drawn(contents, files):
        drawn_keys.extend(content.key for content in contents)
        return [Picture(content.key, {"svg": b"<svg />"}) for content in contents]

    monkeypatch.setattr(write, "draw_all", drawn)
    monkeypatch.setattr(write, "_last_drawing", write._last_drawing)
    figure_svgs(join_runs([replace(run) for run in study.runs]))
    assert drawn_keys == KEYS


def test_names_of_panels_that_would_run_into_each_other_are_broken(tmp_path, monkeypatch):
    figures = write.figure_contents
    monkeypatch.setattr(write, "figure_contents", lambda study: [one for one in figures(study) if one.key == "scaling"])
    batches = {8: (1.0, 0.01), 32: (0.6, 0.2)}
    study = a_study(sample("local-uvicorn", curves={("ws", 1.0): batches, ("http", 1.0): batches}))
    asked = {"think": "exponential=2", "arrival": "steady=60,ramp=10"}
    curves = [
        replace(curve, curve=replace(curve.curve, curve=replace(curve.curve.curve, **asked))) for curve in study.curves
    ]
    write_figures(replace(study, curves=tuple(curves)), tmp_path)
    texts = ["".join(text.itertext()) for text in ET.parse(tmp_path / "scaling.svg").iter(f"{SVG}text")]
    named = [text for text in texts if "wait 1 s" in text]
    assert len(named) == 2
    assert all("think exponential 2 s" in text and "ramp 10 s" not in text for text in named)
    assert sum("ramp 10 s" in text for text in texts) == 2


def test_a_study_without_data_has_no_figures_and_starts_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "_DrawingProcess", lambda caches: pytest.fail("a process was started"))
    empty = a_study(sample(curves={}))
    assert write_figures(empty, tmp_path / "figures") == []
    assert figure_svgs(empty) == {}


def test_a_figure_that_cannot_be_drawn_is_an_error_of_one_line(golden):
    with pytest.raises(FiguresError) as caught:
        write.draw_all([FigureContent("unheard of", "title", "text", {})])
    golden(caught.value)


def test_a_process_that_ends_is_an_error_of_one_line(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(FiguresError, match=r"^figures cannot be drawn: [^\n]+$"):
        write.draw_all([FigureContent("scaling", "title", "text", {})])


def test_a_folder_that_cannot_be_made_is_an_error_of_one_line(golden, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(write, "draw_all", lambda contents, files: [])
    with pytest.raises(RunError) as caught:
        write_figures(replace(a_study(sample(curves={}))), tmp_path / "file" / "figures")
    golden(caught.value)


def test_the_process_of_the_caller_never_imports_what_draws(tmp_path):
    code = (
        "import sys\n"
        "import pytest_openenv_scale.reporting.figures as figures\n"
        "from pytest_openenv_scale.reporting.figures.write import figure_contents\n"
        "from figures_samples import every_kind\n"
        "assert figure_contents(every_kind())\n"
        "assert not {'plotnine', 'matplotlib', 'mizani'} & set(sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "", "HOME": str(tmp_path)},
    )
    assert (result.returncode, result.stderr) == (0, "")
