"""Readiness of many sockets through one registration, the same on every kind of selector and loop."""

from __future__ import annotations

import asyncio
import select
import selectors
import socket
import threading

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_openenv_scale.client.poller import READ, WRITE, Poller, PortableSelector

epoll = pytest.mark.skipif(not hasattr(select, "epoll"), reason="this platform has no epoll")
SELECTORS = [pytest.param("epoll", marks=epoll), "portable", "poll"]
HANG_UP = 0x18
"""EPOLLERR and EPOLLHUP, which no interest mask asks for."""


def selector(kind: str):
    """What a poller works with; "poll" is what a platform has that has neither epoll nor kqueue."""
    if kind == "epoll":
        return select.epoll()
    portable = PortableSelector()
    if kind == "poll":
        portable.close()
        portable._selector = selectors.PollSelector()
    return portable


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request):
    loop = request.param()
    yield loop
    loop.close()


def turn(loop: asyncio.AbstractEventLoop, seconds: float = 0.02) -> None:
    loop.run_until_complete(asyncio.sleep(seconds))


@pytest.mark.parametrize("kind", SELECTORS)
def test_a_handler_is_called_when_its_socket_is_readable(loop, pair, kind):
    ours, theirs = pair
    received: list[bytes] = []
    with Poller(loop, selector(kind)) as poller:
        poller.register(ours.fileno(), READ, lambda mask: received.append(ours.recv(100)))
        turn(loop)
        assert received == []
        theirs.send(b"one")
        turn(loop)
        theirs.send(b"two")
        turn(loop)
    assert received == [b"one", b"two"]


@pytest.mark.parametrize("kind", SELECTORS)
def test_interest_in_writing_is_told_until_it_is_withdrawn(loop, pair, kind):
    ours, _ = pair
    masks: list[int] = []
    with Poller(loop, selector(kind)) as poller:

        def ready(mask: int) -> None:
            masks.append(mask)
            poller.modify(ours.fileno(), READ)

        poller.register(ours.fileno(), READ | WRITE, ready)
        turn(loop)
    assert masks == [WRITE]


@pytest.mark.parametrize("kind", SELECTORS)
def test_the_end_of_the_other_side_is_readable(loop, pair, kind):
    ours, theirs = pair
    masks: list[int] = []
    with Poller(loop, selector(kind)) as poller:

        def ready(mask: int) -> None:
            masks.append(mask)
            poller.unregister(ours.fileno())

        poller.register(ours.fileno(), READ, ready)
        theirs.close()
        turn(loop)
    assert len(masks) == 1
    assert masks[0] & READ


@pytest.mark.parametrize("kind", SELECTORS)
def test_a_refused_connection_wakes_its_handler(loop, kind):
    with socket.socket() as nobody, socket.socket() as ours:
        nobody.bind(("127.0.0.1", 0))
        ours.setblocking(False)
        ours.connect_ex(nobody.getsockname())
        masks: list[int] = []
        with Poller(loop, selector(kind)) as poller:

            def ready(mask: int) -> None:
                masks.append(mask)
                poller.unregister(ours.fileno())

            poller.register(ours.fileno(), READ | WRITE, ready)
            turn(loop)
        assert len(masks) == 1
        assert masks[0] & (READ | WRITE)


@pytest.mark.parametrize("kind", SELECTORS)
def test_a_forgotten_socket_is_silent_and_may_come_back(loop, pair, kind):
    ours, theirs = pair
    masks: list[int] = []
    with Poller(loop, selector(kind)) as poller:
        poller.register(ours.fileno(), READ, masks.append)
        poller.unregister(ours.fileno())
        theirs.send(b"x")
        turn(loop)
        assert masks == []

        def ready(mask: int) -> None:
            masks.append(mask)
            ours.recv(10)

        poller.register(ours.fileno(), READ, ready)
        turn(loop)
    assert masks == [READ]


@pytest.mark.parametrize(
    "kind", SELECTORS[:2]
)  # With `poll` the loop hands out the sockets, and has rounds of its own.
def test_timers_have_their_turn_while_more_sockets_are_ready_than_a_round_takes(loop, kind, monkeypatch):
    monkeypatch.setattr(Poller, "ROUND", 4)
    pairs = [socket.socketpair() for _ in range(40)]
    order: list[str] = []
    with Poller(loop, selector(kind)) as poller:
        for ours, theirs in pairs:

            def ready(mask: int, ours: socket.socket = ours) -> None:
                if not order:
                    loop.call_soon(order.append, "timer")
                order.append("socket")
                ours.recv(10)

            poller.register(ours.fileno(), READ, ready)
            theirs.send(b"x")
        turn(loop, 0.1)
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
    assert order.count("socket") == 40
    assert order.index("timer") <= 8


@pytest.mark.parametrize("kind", SELECTORS)
@pytest.mark.parametrize("fails", [False, True])
def test_work_put_off_is_done_when_all_that_is_ready_was_handled(loop, kind, fails):
    pairs = [socket.socketpair() for _ in range(5)]
    order: list[str] = []
    loop.set_exception_handler(lambda loop, context: None)
    with Poller(loop, selector(kind)) as poller:
        for ours, theirs in pairs:

            def ready(mask: int, ours: socket.socket = ours) -> None:
                ours.recv(10)
                order.append("read")
                poller.call_after_round(lambda: order.append("work"))
                if fails and len(order) == 5:
                    raise ZeroDivisionError

            poller.register(ours.fileno(), READ, ready)
            theirs.send(b"x")
        turn(loop)
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
    assert order == ["read"] * 5 + ["work"] * 5


@pytest.mark.parametrize("kind", SELECTORS)
def test_work_put_off_outside_of_a_round_is_done_in_the_next_turn(loop, kind):
    done: list[int] = []
    with Poller(loop, selector(kind)) as poller:
        for number in range(3):
            poller.call_after_round(lambda number=number: done.append(number))
        assert done == []
        turn(loop)
    assert done == [0, 1, 2]


@pytest.mark.parametrize("kind", SELECTORS)
def test_a_handler_that_fails_leaves_the_others_alive(loop, kind):
    pairs = [socket.socketpair() for _ in range(6)]
    received: list[bytes] = []
    failures: list[BaseException] = []
    loop.set_exception_handler(lambda loop, context: failures.append(context["exception"]))
    with Poller(loop, selector(kind)) as poller:
        for number, (ours, theirs) in enumerate(pairs):

            def ready(mask: int, ours: socket.socket = ours, number: int = number) -> None:
                data = ours.recv(10)
                if number == 0:
                    raise ZeroDivisionError
                received.append(data)

            poller.register(ours.fileno(), READ, ready)
            theirs.send(b"x")
        turn(loop, 0.05)
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
    assert received == [b"x"] * 5
    assert [type(failure) for failure in failures] == [ZeroDivisionError]


@epoll
@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([READ, WRITE, READ | WRITE]), st.booleans(), st.booleans()), min_size=1, max_size=6
    )
)
def test_the_portable_selector_gives_what_epoll_gives(sockets):
    selectors = [select.epoll(), PortableSelector()]
    pairs = [socket.socketpair() for _ in sockets]
    try:
        for (ours, theirs), (mask, written, changed) in zip(pairs, sockets, strict=True):
            for each_selector in selectors:
                each_selector.register(ours.fileno(), READ if changed else mask)
                if changed:
                    each_selector.modify(ours.fileno(), mask)
            if written:
                theirs.send(b"x")
        expected, events = (sorted(one.poll(0, 100)) for one in selectors)
        assert events == [(fd, mask & ~HANG_UP) for fd, mask in expected]
        assert all(len(one.poll(0, 1)) <= 1 for one in selectors)
        for each_selector in selectors:
            each_selector.unregister(pairs[0][0].fileno())
        assert pairs[0][0].fileno() not in [fd for one in selectors for fd, _ in one.poll(0, 100)]
    finally:
        for each_selector in selectors:
            each_selector.close()
        for ours, theirs in pairs:
            ours.close()
            theirs.close()


@epoll
def test_both_selectors_report_a_hang_up_as_readable():
    for each_selector in (select.epoll(), PortableSelector()):
        ours, theirs = socket.socketpair()
        each_selector.register(ours.fileno(), READ)
        theirs.close()
        ((fd, mask),) = each_selector.poll(0, 10)
        assert fd == ours.fileno()
        assert mask & READ
        each_selector.unregister(ours.fileno())
        each_selector.close()
        ours.close()


@pytest.mark.parametrize("kind", SELECTORS)
def test_a_negative_timeout_waits_for_as_long_as_it_takes(pair, kind):
    ours, theirs = pair
    poller = selector(kind)
    poller.register(ours.fileno(), READ)
    late = threading.Timer(0.2, theirs.send, (b"x",))
    late.start()
    assert poller.poll(-1, 10) == [(ours.fileno(), READ)]
    late.join()
    poller.close()
