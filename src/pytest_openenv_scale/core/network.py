"""How the servers of a run are reached, by everything that connects to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that opens tunnels (`CONNECT`). `authorization` is sent to it alone and never shown."""

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def headers(self) -> Mapping[str, str]:
        """What it is sent with each `CONNECT`."""
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class Network:
    """How servers are reached: by a `proxy` (None: straight). With `insecure`, TLS certificates are not checked."""

    insecure: bool = False
    proxy: Proxy | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What every report says of it."""
        return (
            *(("TLS certificates were not checked (--openenv-insecure)",) if self.insecure else ()),
            *((f"reached by the proxy {self.proxy} (--openenv-proxy)",) if self.proxy else ()),
        )

    def destinations(self, urls: Sequence[str]) -> tuple[str, ...]:
        """Return the URLs that connections to servers at `urls` are made to: the proxy's, where there is one."""
        return (self.proxy.url,) if self.proxy else tuple(urls)


DIRECT = Network()
"""Straight to the server, its certificate checked."""
