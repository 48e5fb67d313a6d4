"""What is known of a cell besides its rows: stored with them, so that a part explains itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.core.endpoint import ProxyFacts, ServerSample
from pytest_openenv_scale.core.exit_status import ExitStatus
from pytest_openenv_scale.core.serialization import Jsonable


@dataclass(frozen=True, slots=True)
class ClientFinding(Jsonable):
    """Something about the client that makes a cell inconclusive.

    `kind` is cpu, loop_lag, descriptors, ports, process_died, http_lag or hold; `message` is one line with figures.
    """

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class ServerSamples(Jsonable):
    """The server's processes before and after a cell, and the largest value of each figure in between."""

    first: ServerSample | None = None
    last: ServerSample | None = None
    peak: ServerSample | None = None


@dataclass(frozen=True, slots=True)
class CellMeta(Jsonable):
    """Everything about one repetition of a cell that is not in its rows; stored in the part's Parquet schema.

    `wall_s` is seconds, `started_at` UTC. `cores`, `hosts`, `hardware` and `limits` are the endpoint's.
    `server_exit` is how the server ended if it died (a sentence in runs of version 0.1); `log_tail` is kept only where
    something failed.
    `client` holds the load generator's own figures (CPU, loop lag, descriptors), `proxy` what a proxy in
    front of several hosts counted. `notes` say what was unusual without keeping the cell from being judged.
    """

    run_id: str
    sweep_id: str
    cell: Cell
    repetition: int
    wall_s: float
    started_at: datetime
    hardware: str | None = None
    cores: int | None = None
    hosts: int | None = None
    limits: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    client: Mapping[str, Any] = field(default_factory=dict[str, Any])
    findings: tuple[ClientFinding, ...] = ()
    server: ServerSamples = field(default_factory=ServerSamples)
    server_exit: ExitStatus | str | None = None
    log_tail: str | None = None
    notes: tuple[str, ...] = ()
    proxy: ProxyFacts | None = None

    @property
    def ending(self) -> ExitStatus | None:
        """How the server ended; None while it runs or where that is unknown."""
        return ExitStatus.parse(self.server_exit) if isinstance(self.server_exit, str) else self.server_exit
