"""What the marks of a test ask for, and what is wrong with them; a mistake belongs to its test alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from .core.plan import largest_batch
from .core.settings import Settings
from .core.slo import Slo
from .marked import check_selects, scaling_mark, slo_marks
from .marks import MarkError
from .stash import DECLARATION

FIXTURE = "scaling"

CHECK_FIXTURE = "openenv_check"


@dataclass(frozen=True, slots=True)
class Declaration:
    """What one test asks for; `problem` is one line where that cannot be done."""

    settings: Settings
    slos: tuple[Slo, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """What the selected tests ask of a target together; `tests` are the node ids of those that measure."""

    largest_batch: int = 1
    modes: tuple[str, ...] = ("ws",)
    tests: tuple[str, ...] = ()


def declare(item: pytest.Item, settings: Settings) -> Declaration | None:
    """Read the marks of a test; None where it has nothing to do with this plugin."""
    try:
        return _read(item, settings, fixture=FIXTURE in getattr(item, "fixturenames", ()))
    except MarkError as error:
        return Declaration(settings, problem=str(error))


def select(items: Iterable[pytest.Item], settings: Settings) -> Selection:
    """Sum up what the selected tests ask of a target: the cells they declare, and the sessions that checks open."""
    items = list(items)
    checks = [item.nodeid for item in items if CHECK_FIXTURE in getattr(item, "fixturenames", ())]
    found = {
        item.nodeid: item.stash[DECLARATION]
        for item in items
        if DECLARATION in item.stash and FIXTURE in getattr(item, "fixturenames", ())
    }
    sound = {test: declared for test, declared in found.items() if declared.problem is None}
    if not sound and not checks:
        return Selection()
    largest = [largest_batch(each.settings.batches, each.slos) for each in sound.values()]
    modes = [mode for each in sound.values() for mode in each.settings.modes]
    return Selection(
        largest_batch=max([*largest, settings.batches[-1]] if checks else largest),
        modes=tuple(dict.fromkeys([*modes, *settings.modes] if checks else modes)),
        tests=tuple(item.nodeid for item in items if item.nodeid in sound or item.nodeid in checks),
    )


def _read(item: pytest.Item, settings: Settings, *, fixture: bool) -> Declaration | None:
    mark, marked_slos = scaling_mark(item), slo_marks(item)
    arguments = [name for name, given in (("scaling", mark and mark.written()), ("slo", marked_slos)) if given]
    if not fixture and not arguments:
        return None
    if not isinstance(item, pytest.Function) or _is_unittest(item):
        raise MarkError(
            f"mark {arguments[0] if arguments else 'scaling'}: it is for test functions and methods of plain "
            "classes; write def test_…(scaling): scaling.run()"
        )
    if not fixture:
        raise MarkError(
            f"mark {arguments[0]} has arguments, but the test does not use the fixture scaling; "
            f"write def {item.originalname}(scaling): scaling.run()"
        )
    if mark is None:
        raise MarkError(
            "the fixture scaling needs the mark: write @pytest.mark.scaling above the test "
            "(without it, -m scaling skips this test)"
        )
    own = settings.with_mark(mark)
    slos = own.slos(marked_slos)
    check_selects(slos, own.axis("modes"), own.axis("waits"), own.axis("batches"))
    return Declaration(own, slos)


def _is_unittest(item: pytest.Function) -> bool:
    import unittest

    return item.cls is not None and issubclass(item.cls, unittest.TestCase)
