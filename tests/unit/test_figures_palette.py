"""One look per infrastructure, told apart by everyone."""

from __future__ import annotations

from itertools import combinations

import pytest

from pytest_openenv_scale.analysis.study import FAMILIES
from pytest_openenv_scale.reporting.figures import content

BLINDNESS = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}
"""How linear RGB is seen, after Machado, Oliveira and Fernandes, IEEE TVCG 15(6), 2009, at full severity."""


def linear(colour: str) -> list[float]:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def as_seen(colour: str, how) -> tuple[float, float, float]:
    """Return a colour as CIE L*a*b*, seen with a colour vision."""
    red, green, blue = (
        min(max(sum(weight * part for weight, part in zip(row, linear(colour), strict=True)), 0), 1) for row in how
    )
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089
    fx, fy, fz = (part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116 for part in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2."""
    low, high = sorted(
        sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear(c), strict=True)) for c in (one, other)
    )
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("how", BLINDNESS.values(), ids=BLINDNESS)
def test_no_two_known_infrastructures_look_alike(how):
    for one, other in combinations(content.series_styles(FAMILIES).values(), 2):
        first, second = as_seen(one.colour, how), as_seen(other.colour, how)
        assert sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5 > 15
        assert one.shape != other.shape


@pytest.mark.parametrize("ground", ["#ffffff", "#121212"])
def test_every_colour_can_be_seen_on_light_and_on_dark(ground):
    for look in content.series_styles(FAMILIES).values():
        assert contrast(look.colour, ground) > 2.2


def test_a_known_infrastructure_looks_the_same_in_every_report():
    alone = content.series_styles(["slurm-single"])["slurm-single"]
    assert content.series_styles(["example.org", "local-uvicorn", "slurm-single"])["slurm-single"] == alone


def test_others_take_what_no_known_one_has():
    styles = content.series_styles(["local-uvicorn", "b.example", "a.example"])
    assert len(set(styles.values())) == 3
    assert list(styles) == ["local-uvicorn", "b.example", "a.example"]


def test_the_first_variant_of_a_known_one_looks_like_it():
    spaces = content.series_styles(["hf-spaces"])["hf-spaces"]
    styles = content.series_styles(["hf-spaces (cpu-basic)", "hf-spaces (cpu-upgrade)"])
    assert styles["hf-spaces (cpu-basic)"] == spaces
    assert styles["hf-spaces (cpu-upgrade)"] != spaces


def test_as_many_as_anyone_will_read_are_told_apart_by_colour_and_marker():
    styles = content.series_styles([f"host{at}.example" for at in range(30)])
    assert len({(look.colour, look.shape) for look in styles.values()}) == 30


def test_shades_run_from_the_smallest_batch_to_the_largest():
    assert content.batch_colours(2) == [content.BATCHES[0], content.BATCHES[-1]]
    assert len(set(content.batch_colours(15))) == 15
    assert len(content.batch_colours(1)) == 1


def test_text_on_a_tile_can_be_read():
    for at in range(11):
        colour = content.heat_colour(at / 10)
        assert contrast(colour, "#fdfdfd" if content.is_dark(colour) else "#101010") >= 4.5
