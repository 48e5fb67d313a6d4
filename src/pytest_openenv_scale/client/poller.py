"""Readiness of thousands of sockets at the price of one event-loop registration.

An epoll (or kqueue) descriptor is itself pollable. A `Poller` owns one, registers it with the running
asyncio loop, and hands ready sockets straight to their handlers: no transport, protocol, future or task
stands between a packet and the session it belongs to, and timers, HTTP sessions and the caller's own
coroutines share the same loop.
"""

from __future__ import annotations

import asyncio
import select
import selectors
from collections.abc import Callable
from typing import Protocol, Self

READ, WRITE = 1, 4
"""Interest masks, with the values of EPOLLIN and EPOLLOUT."""

Handler = Callable[[int], None]


class _Selector(Protocol):
    def fileno(self) -> int: ...
    def register(self, fd: int, mask: int, /) -> None: ...
    def modify(self, fd: int, mask: int, /) -> None: ...
    def unregister(self, fd: int, /) -> None: ...
    def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]: ...
    def close(self) -> None: ...


class PortableSelector:
    """The interface of `select.epoll` where there is none, on whatever the platform offers: kqueue on macOS."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a registered socket is ready.

        Raises:
            AttributeError: the platform has no such descriptor, only `poll`.
        """
        return self._selector.fileno()  # type: ignore[attr-defined]  # epoll and kqueue selectors have one

    def register(self, fd: int, mask: int) -> None:
        """Watch a descriptor for the events of the mask."""
        self._selector.register(fd, self._events(mask))

    def modify(self, fd: int, mask: int) -> None:
        """Watch a known descriptor for other events."""
        self._selector.modify(fd, self._events(mask))

    def unregister(self, fd: int) -> None:
        """Stop watching a descriptor."""
        self._selector.unregister(fd)

    def poll(self, timeout: float, maxevents: int) -> list[tuple[int, int]]:
        """Return up to `maxevents` pairs of ready descriptor and mask; `timeout` in seconds, negative is for ever."""
        ready = self._selector.select(None if timeout < 0 else timeout)
        return [
            (
                key.fd,
                (READ if events & selectors.EVENT_READ else 0) | (WRITE if events & selectors.EVENT_WRITE else 0),
            )
            for key, events in ready[:maxevents]
        ]

    def close(self) -> None:
        """Close the descriptor."""
        self._selector.close()

    @staticmethod
    def _events(mask: int) -> int:
        return (selectors.EVENT_READ if mask & READ else 0) | (selectors.EVENT_WRITE if mask & WRITE else 0)


def new_selector() -> _Selector:
    """Return epoll where the platform has it, else a `PortableSelector`."""
    return select.epoll() if hasattr(select, "epoll") else PortableSelector()


class _LoopSelector:
    """Watches each socket with the event loop itself, where a selector has no descriptor of its own to watch."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ready: Callable[[int, int], None]) -> None:
        self._loop = loop
        self._ready = ready
        self._descriptors: set[int] = set()

    def register(self, fd: int, mask: int) -> None:
        self._descriptors.add(fd)
        self.modify(fd, mask)

    def modify(self, fd: int, mask: int) -> None:
        if mask & READ:
            self._loop.add_reader(fd, self._ready, fd, READ)
        else:
            self._loop.remove_reader(fd)
        if mask & WRITE:
            self._loop.add_writer(fd, self._ready, fd, WRITE)
        else:
            self._loop.remove_writer(fd)

    def unregister(self, fd: int) -> None:
        self._descriptors.discard(fd)
        self.modify(fd, 0)

    def close(self) -> None:
        for fd in list(self._descriptors):
            self.unregister(fd)


class Poller:
    """Sockets and their handlers, attached to an event loop; `close()` detaches it.

    A handler is called with the mask of what is ready, and may register, modify or unregister its own
    descriptor. It must not close another's: that one's event may be waiting in the same round.
    """

    ROUND = 256
    """Ready sockets handled before timers and other callbacks of the loop get their turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop, selector: _Selector | None = None) -> None:
        chosen = selector or new_selector()
        self._poll = chosen.poll
        self._handlers: dict[int, Handler] = {}
        self._deferred: list[Callable[[], None]] = []
        self._in_round = False
        self._loop = loop
        self._selector: _Selector | _LoopSelector = chosen
        self._selector_fd: int | None = None
        try:
            self._selector_fd = chosen.fileno()
        except AttributeError:
            chosen.close()
            self._selector = _LoopSelector(loop, self._handle_one)
        else:
            loop.add_reader(self._selector_fd, self._drain)
        self._portable = isinstance(self._selector, PortableSelector | _LoopSelector)

    def register(self, fd: int, mask: int, handler: Handler) -> None:
        """Watch a descriptor; `handler(mask)` is called whenever it is ready."""
        self._selector.register(fd, mask)
        self._handlers[fd] = handler

    def modify(self, fd: int, mask: int) -> None:
        """Watch a known descriptor for other events."""
        self._selector.modify(fd, mask)

    def unregister(self, fd: int) -> None:
        """Forget a descriptor, which stays open."""
        del self._handlers[fd]
        self._selector.unregister(fd)

    def release(self, fd: int) -> None:
        """Forget a descriptor that is closed next; epoll drops it then by itself, without a system call."""
        del self._handlers[fd]
        if self._portable:
            self._selector.unregister(fd)

    def call_after_round(self, callback: Callable[[], None]) -> None:
        """Call `callback` once all ready sockets were handled; outside of a round, in the next iteration of the loop.

        Sending is put off this way: reading and sending in turns costs a sixth more than one after the other.
        """
        if not self._deferred and not self._in_round:
            self._loop.call_soon(self._run_deferred)
        self._deferred.append(callback)

    def _drain(self) -> None:
        handlers = self._handlers
        self._in_round = True
        try:
            for fd, mask in self._poll(0, self.ROUND):
                handler = handlers.get(fd)
                if handler is not None:
                    handler(mask)
        finally:
            self._in_round = False
            self._run_deferred()

    def _handle_one(self, fd: int, mask: int) -> None:
        """Handle one socket that the event loop reports as ready."""
        handler = self._handlers.get(fd)
        if handler is not None:
            handler(mask)

    def _run_deferred(self) -> None:
        callbacks, self._deferred = self._deferred, []
        for callback in callbacks:
            callback()

    def close(self) -> None:
        """Detach from the loop and close the polling descriptor; registered sockets stay open."""
        if self._selector_fd is not None:
            self._loop.remove_reader(self._selector_fd)
        self._selector.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
