"""One running container of an image: started so that it can be reached, watched, and removed whatever happens."""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pytest_openenv_scale.core.endpoint import ExitStatus, ServerSample
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.targets.common.base import Startable
from pytest_openenv_scale.targets.common.leftovers import deferring_interrupts, owner_label
from pytest_openenv_scale.targets.common.options import (
    count,
    memory_size,
    one_of,
    option,
    processors,
    tcp_port,
    variables,
)
from pytest_openenv_scale.targets.common.sampling import ControlGroup, ProcessSampler, control_group

from .engine import Engine, explain_error, is_not_found, memory_words, read_exit, read_stats

RUN_LABEL = "openenv-scale.run"
OWNER_LABEL = "openenv-scale.owner"
DEFAULT_PORT = 8000
_STOP_S = 3
_KEPT_LOG_LINES = 1000
_STATS_PERIOD_S = 1.1
_NO_BRIDGE = re.compile("create endpoint|find bridge|network bridge not found")
_NO_ATTRIBUTES: dict[str, Any] = {"State": {}, "Config": {}, "NetworkSettings": {}}

Network = Literal["auto", "host", "publish"]


@dataclass(frozen=True)
class ContainerOptions:
    """How a container is run.

    `env` are its variables. `address` is the local address it is reached at and `port` where the server in it
    listens; by default that is the one port the image exposes, or PORT, or 8000, and a free one where the
    container shares the machine's network. `network` "auto" publishes the port where the engine can. `cpus` are
    processors, `memory` bytes, `nofile` open files per process, `gpu` a device of the engine or "all".
    `run_id` goes on its label.
    """

    env: Mapping[str, str] = variables()
    address: str = "127.0.0.1"
    port: int | None = option(tcp_port)
    network: Network = option(one_of("auto", "host", "publish"), "auto")
    cpus: float | None = option(processors)
    memory: int | None = option(memory_size)
    nofile: int | None = option(count)
    gpu: str | None = option()
    run_id: str | None = None

    @property
    def known_port(self) -> int | None:
        """The port the server listens on, from `port` or its variable; None where only the image knows it."""
        variable = self.env.get("PORT", "")
        return self.port or (int(variable) if variable.isdecimal() else None)


def create_request(
    image: str, options: ContainerOptions, *, network: Literal["host", "publish"], port: int, bind: str, owner: str
) -> dict[str, Any]:
    """Return what an engine is asked to make, as `containers.create` of the docker package takes it.

    The server in it listens at `port`, which the engine publishes at the address `bind`, or the machine's network
    has. `owner` goes on its label.
    """
    host = options.address if network == "host" else "0.0.0.0"
    request: dict[str, Any] = {
        "image": image,
        "environment": {"HOST": host, "PORT": str(port), **options.env},
        "labels": {RUN_LABEL: options.run_id or "", OWNER_LABEL: owner},
        "detach": True,
    }
    request |= {"network_mode": "host"} if network == "host" else {"ports": {f"{port}/tcp": (bind, None)}}
    if options.cpus is not None:
        request["nano_cpus"] = round(options.cpus * 1e9)
    if options.memory is not None:
        # As much with swap as without: a server that swaps measures the disk.
        request |= {"mem_limit": options.memory, "memswap_limit": options.memory}
    if options.nofile is not None:
        request["ulimits"] = [{"name": "nofile", "soft": options.nofile, "hard": options.nofile}]
    if options.gpu is not None:
        device = {"count": -1} if options.gpu == "all" else {"device_ids": [options.gpu]}
        request["device_requests"] = [{"capabilities": [["gpu"]], **device}]
    return request


class Container(Startable):
    """A container from its creation to its removal; a context manager, or `start` and `stop`.

    It outlives this process unless it is stopped: `graceful_signals` are held by whoever starts it.

    `log_path` gets its whole output when it is stopped. Once `start` has returned, `url` is where it is to be
    reached; whether it answers there is for `readiness.wait_until_ready` to find out.
    """

    def __init__(
        self, engine: Engine, image: str, options: ContainerOptions | None = None, *, log_path: Path | None = None
    ) -> None:
        self._engine = engine
        self._image = image
        self._options = options or ContainerOptions()
        self._log_path = log_path
        self._container: Any = None
        self._began = 0.0
        self._started_at = ""
        self._final_log: str | None = None
        self._final_status: ExitStatus | None = None
        self._processes: ProcessSampler | None = None
        self._control_group: ControlGroup | None = None
        self._engine_sample: ServerSample | None = None
        self.name = ""
        """What the engine calls it; each start makes a new one."""
        self.env: Mapping[str, str] = {}
        """The variables it runs with: the image's, and over them those given."""
        self.network: Literal["host", "publish"] = "publish"
        """How it is reached: at a port the engine publishes, or on the machine's own network."""
        self.host = self._options.address
        self.port = 0
        """Where it is reached; inside it the server may listen on another port."""

    @property
    def url(self) -> str:
        """The base URL of the server in it."""
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Create and start the container; nothing of it is left where that fails or is interrupted.

        Raises:
            TargetError: the engine refuses an option, or cannot run the image's command.
        """
        self._final_log = self._final_status = None
        try:
            self.network = self._choose_network()
            if not (self._run() and self._find_published_port()):
                # Some engines take a port to publish and do nothing about it; others have lost their bridge.
                if self._options.network == "publish":
                    raise TargetError(
                        f"{self._engine.error_prefix}: the engine does not publish ports "
                        "(it has no working bridge network); write network=host"
                    )
                self._remove()
                self.network = "host"
                self._run()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop and remove it (SIGTERM, then SIGKILL), its log kept; may be repeated."""
        try:
            if self._container is not None:
                self._keep_final_state()
                with contextlib.suppress(Exception):
                    self._container.stop(timeout=_STOP_S)
                self._keep_log()
        finally:
            # Also at a second interrupt, given because the first took too long.
            self._remove()

    def sample(self) -> ServerSample | None:
        """Return what the container uses now; None once it does not run, or where that cannot be read.

        Memory is without the page cache that the kernel would give back. Where the container is not this
        machine's, the figures are the engine's, up to a second old and without processes and descriptors.
        """
        if self._container is None:
            return None
        group = self._control_group
        usage = group.sample(time.monotonic()) if group is not None else self._sample_by_engine()
        if usage is None:
            return None
        seen = (self._processes.sample() if self._processes is not None else None) or ServerSample(usage.at_s)
        return replace(
            usage,
            processes=seen.processes,
            descriptors=seen.descriptors,
            descriptor_limit=seen.descriptor_limit,
            all_descriptors=seen.all_descriptors,
            restarts=self.restarts(),
        )

    def _sample_by_engine(self) -> ServerSample | None:
        """Return the engine's figures, read anew after `_STATS_PERIOD_S`, as it delays requests that come sooner."""
        now = time.monotonic()
        if self._engine_sample is None or now - self._engine_sample.at_s > _STATS_PERIOD_S:
            try:
                self._engine_sample = read_stats(self._container.stats(stream=False, one_shot=True), now)
            except Exception:
                self._engine_sample = None
        return self._engine_sample

    def restarts(self) -> int | None:
        """Return how often it was started again since `start`, by the engine or by somebody; None if unknown."""
        attributes = self._inspect()
        if attributes is None or attributes["State"].get("Removed"):
            return None
        by_engine = int(attributes.get("RestartCount") or 0)
        restarted = bool(attributes["State"].get("StartedAt", "") != self._started_at and self._started_at)
        return max(by_engine, int(restarted))

    def exit_status(self) -> ExitStatus | None:
        """Return how it ended, a restart included; None while it runs as it was started."""
        if self._final_status is None and self._container is not None:
            self._final_status = self._read_final_status()
        return self._final_status

    def log_tail(self, lines: int = 20) -> str:
        """Return the last `lines` lines of its output, also after the end, and what the engine knows besides."""
        text = self._read_log(lines) if self._final_log is None else self._final_log
        tail = text.splitlines()[-lines:] if lines > 0 else []
        return "\n".join([*tail, *self._out_of_memory_lines()])

    def _choose_network(self) -> Literal["host", "publish"]:
        network = self._options.network
        return network if network != "auto" else "publish" if self._engine.has_bridge else "host"

    def _run(self) -> bool:
        """Create and start it; False where the engine has no network to publish its port from."""
        self.host = self._options.address if self._engine.is_local else self._engine.address
        self.port = self._inner_port()
        self.name = f"openenv-scale-{secrets.token_hex(6)}"
        deferring_interrupts(self._create)
        self._began = time.time()
        if not deferring_interrupts(self._start):
            return False
        attributes = self._inspect() or _NO_ATTRIBUTES
        self._started_at = str(attributes["State"].get("StartedAt", ""))
        self.env = _parse_variables(attributes["Config"].get("Env"))
        pid, identity = attributes["State"].get("Pid"), str(attributes.get("Id", ""))
        if pid and identity and self._engine.is_local:
            self._control_group = control_group(int(pid), identity)
            self._processes = ProcessSampler([int(pid)]) if self._control_group else None
        return True

    def _create(self) -> None:
        # An engine elsewhere is reached at its own address, so it must listen there.
        bind = self._options.address if self._engine.is_local else "0.0.0.0"
        request = create_request(
            self._image, self._options, network=self.network, port=self.port, bind=bind, owner=owner_label()
        )
        create = self._engine.client.containers.create
        self._container = self._engine.call(create, "make a container", name=self.name, **request)

    def _start(self) -> bool:
        try:
            self._container.start()
        except Exception as error:
            reason = explain_error(error)
            if self.network == "publish" and _NO_BRIDGE.search(reason):
                return False
            raise TargetError(f"{self._engine.error_prefix}: {self._start_failure(reason)}") from None
        return True

    def _start_failure(self, reason: str) -> str:
        options = self._options
        if options.nofile is not None and "rlimit" in reason:
            return f"the engine may not allow nofile={options.nofile} open files: {reason}; write a smaller nofile="
        if options.gpu is not None and "capabilities" in reason:
            remedy = "install nvidia-container-toolkit where it runs"
            return f"the engine has no GPU to give for gpu={options.gpu}: {reason}; {remedy}"
        return f"the container cannot start: {reason}"

    def _inner_port(self) -> int:
        options = self._options
        if (port := options.known_port) is not None:
            return port
        if self.network == "host":
            return _free_port(options.address)
        config = self._engine.image_config(self._image)
        ports: dict[str, object] = config.get("ExposedPorts") or {}
        exposed = [int(port.partition("/")[0]) for port in ports if port.endswith("/tcp")]
        image_port = _parse_variables(config.get("Env")).get("PORT", "")
        if image_port.isdecimal():
            return int(image_port)
        return exposed[0] if len(exposed) == 1 else DEFAULT_PORT

    def _find_published_port(self) -> bool:
        """Read which port the engine chose; False where it published none, though it should have."""
        if self.network == "host":
            return True
        attributes = self._inspect() or _NO_ATTRIBUTES
        if not attributes["State"].get("Running"):
            return True
        ports: dict[str, list[dict[str, str]] | None] = attributes["NetworkSettings"].get("Ports") or {}
        for binding in ports.get(f"{self.port}/tcp") or ():
            self.port = int(binding["HostPort"])
            return True
        return False

    def _inspect(self) -> dict[str, Any] | None:
        """Return what the engine knows of the container; None where it does not answer."""
        if self._container is None:
            return None
        try:
            self._container.reload()
        except Exception as error:
            return {**_NO_ATTRIBUTES, "State": {"Removed": True}} if is_not_found(error) else None
        return self._container.attrs

    def _read_final_status(self) -> ExitStatus | None:
        attributes = self._inspect()
        if attributes is None:
            return None
        state: dict[str, Any] = attributes["State"]
        if state.get("Removed"):
            return ExitStatus("other", "was removed by somebody else")
        if not state.get("Running"):
            return read_exit(state, self._options.memory)
        if self.restarts():
            at = str(state.get("StartedAt", ""))[:19]
            return ExitStatus("other", f"was restarted at {at} UTC, which ended its sessions")
        return None

    def _out_of_memory_lines(self) -> list[str]:
        """Return a line on processes the kernel killed for lack of memory while the container itself went on."""
        if self._container is None or self._final_status is not None:
            return []
        try:
            events = self._engine.client.events(
                since=f"{self._began:.6f}",
                # In the future, the engine would keep us waiting for it.
                until=f"{time.time():.6f}",
                filters={"container": self._container.id, "event": "oom"},
                decode=True,
            )
            kills = sum(1 for _ in events)
        except Exception:
            return []
        times = "once" if kills == 1 else f"{kills} times"
        limit = memory_words(self._options.memory)
        return [f"openenv-scale: the container was out of memory {times} ({limit})"] if kills else []

    def _read_log(self, lines: int | Literal["all"]) -> str:
        if self._container is None:
            return ""
        try:
            return self._container.logs(tail=lines).decode(errors="replace")
        except Exception:
            return ""

    def _keep_final_state(self) -> None:
        """Read how it ended, before we end it, and the end of its log."""
        self.exit_status()
        self._final_log = self._read_log(_KEPT_LOG_LINES)

    def _keep_log(self) -> None:
        text = self._read_log("all" if self._log_path is not None else _KEPT_LOG_LINES)
        self._final_log = text or self._final_log
        if self._log_path is not None and text:
            self._log_path.parent.mkdir(parents=True, exist_ok=True)
            with self._log_path.open("a", encoding="utf-8") as file:
                file.write(text)

    def _remove(self) -> None:
        """Remove it by name, which is known before it exists."""
        name, self._container, self._processes, self._control_group = self.name, None, None, None
        if not name:
            return

        def remove() -> None:
            try:
                self._engine.client.api.remove_container(name, force=True, v=True)
            except Exception as error:
                if not is_not_found(error) and "already in progress" not in str(error):
                    raise TargetError(
                        f"{self._engine.error_prefix}: the container {name} cannot be removed: {explain_error(error)}; "
                        "openenv-scale gc removes it later"
                    ) from None

        deferring_interrupts(remove)
        self.name = ""


def _parse_variables(pairs: list[str] | None) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in pairs or [] if "=" in pair)


def _free_port(address: str) -> int:
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            free.bind((address, 0))
        except OSError:
            free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
