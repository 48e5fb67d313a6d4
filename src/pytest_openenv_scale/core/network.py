"""How the servers of a run are reached, by everything that connects to them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Network:
    """How servers are reached. With `insecure`, TLS certificates are not checked."""

    insecure: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """What every report says of it."""
        return ("TLS certificates were not checked (--openenv-insecure)",) if self.insecure else ()


DIRECT = Network()
"""Straight to the server, its certificate checked."""
