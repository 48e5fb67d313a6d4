"""Spaces: what they are set to, the stages they go through, and the routes that change both."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import Any

from .server import Answer, Hub, HubError, Repo, Request, Routes, json_answer
from .space_host import Front, Rules, Server

FREE = "cpu-basic"
FREE_SLEEP_S = 172800
FLAVORS = ("cpu-basic", "cpu-upgrade", "t4-small", "a10g-large", "quantum-x1")

routes = Routes()


@dataclass
class Space:
    """A Space's settings and stage.

    A change makes it `BUILDING` (or `APP_STARTING`), and each look at its runtime takes it one stage on, until
    it ends as `ends` says. New hardware is first only asked for: one look still shows the old one, running.
    """

    repo: Repo
    stage: str = "RUNNING"
    hardware: str | None = FREE
    requested: str = FREE
    sleep_time: int | None = FREE_SLEEP_S
    variables: dict[str, str] = field(default_factory=dict[str, str])
    secrets: list[str] = field(default_factory=list[str])
    ends: str = "RUNNING"
    build_log: list[str] = field(default_factory=list[str])
    run_log: list[str] | None = None
    error_message: str | None = None
    pays: bool = True
    replicas: int = 1
    rules: Rules = field(default_factory=Rules)
    stages: list[str] = field(default_factory=list[str])
    """Every stage it was seen in, in order."""

    def __post_init__(self) -> None:
        self._lagging = False
        self._woken = threading.Event()
        self.rules.private = self.repo.private
        self.front = Front(self.rules, self._woken)
        self.server: Server | None = None

    # --- its life

    def settle(self) -> None:
        """Be what the stage says at once, as a Space of a test is when the test begins."""
        if self.stage == "RUNNING":
            self._start()
            while self.server is not None and self.server.address is None:
                threading.Event().wait(0.02)
            self.front.backend = self.server.address if self.server else None

    def rebuild(self, stage: str = "BUILDING") -> None:
        self._stop()
        self.stage = stage

    def restart(self) -> None:
        if self.stage not in ("PAUSED", "SLEEPING"):
            self.rebuild("APP_STARTING")

    def halt(self, stage: str) -> None:
        """Stop: paused, asleep, or gone wrong."""
        self._stop()
        self.stage = stage

    def ask_hardware(self, flavor: str, sleep_time: int | None) -> None:
        self.requested = flavor
        if flavor == FREE:
            self.sleep_time = FREE_SLEEP_S
        elif sleep_time is not None:
            self.sleep_time = None if sleep_time == -1 else sleep_time
        elif self.hardware == FREE:
            self.sleep_time = None
        self._lagging = self.stage == "RUNNING"

    def look(self) -> str:
        """Say which stage it is in, and go on to the next."""
        if self.stage == "SLEEPING" and self._woken.is_set():
            self._woken.clear()
            self.stage = "APP_STARTING"
        stage = self.stage
        if not self.stages or self.stages[-1] != stage:
            self.stages.append(stage)
        if self._lagging:
            self._lagging = False
            self.rebuild()
        elif stage == "BUILDING":
            failed = self.ends in ("BUILD_ERROR", "CONFIG_ERROR", "NO_APP_FILE")
            self.stage = self.ends if failed else "APP_STARTING"
        elif stage == "APP_STARTING":
            self._come_up()
        return stage

    def close(self) -> None:
        self._stop()
        self.front.close()

    def _come_up(self) -> None:
        if self.ends != "RUNNING":
            self.halt(self.ends)
            return
        if self.server is None:
            self._start()
        assert self.server is not None
        if self.server.address is not None:
            self.front.backend = self.server.address
            self.hardware = self.requested
            self.stage = "RUNNING"

    def _start(self) -> None:
        self.server = Server(self.variables)

    def _stop(self) -> None:
        self.front.backend = None
        self.front.cut()
        if self.server is not None:
            self.server.stop()
            self.server = None

    # --- what the Hub says of it

    def runtime(self, stage: str | None = None) -> dict[str, Any]:
        details: dict[str, Any] = {
            "stage": stage or self.stage,
            "hardware": {"current": self.hardware, "requested": self.requested},
            "storage": None,
            "gcTimeout": self.sleep_time,
            "replicas": {"current": self.replicas, "requested": self.replicas},
            "devMode": False,
            "sha": self.repo.head,
        }
        if self.error_message and self.stage.endswith("ERROR"):
            details["errorMessage"] = self.error_message
        return details


def space_of(repo: Repo) -> Space:
    if repo.space is None:
        raise HubError(400, "this repository is no Space")
    return repo.space


@routes.on("GET", "/api/agent-harnesses")
def agent_harnesses(hub: Hub, request: Request) -> Answer:
    return json_answer({"standardEnvVars": [], "harnesses": {}})


@routes.on("GET", "/api/whoami-v2")
def whoami(hub: Hub, request: Request) -> Answer:
    if not request.authorized:
        raise HubError(401, "Invalid credentials in Authorization header")
    token = {"type": "access_token", "accessToken": {"displayName": "tests", "role": "write"}}
    return json_answer({"type": "user", "id": "u1", "name": hub.user, "fullname": "Alice", "orgs": [], "auth": token})


@routes.on(
    "POST",
    "/api/repos/create",
    body={"name", "organization", "type", "visibility", "sdk", "hardware", "sleepTimeSeconds", "variables", "secrets"},
)
def create(hub: Hub, request: Request) -> Answer:
    details = request.json()
    kind = details.get("type", "model")
    id = f"{details.get('organization') or hub.user}/{details['name']}"
    if not request.authorized:
        raise HubError(401, "Invalid username or password.")
    if id.partition("/")[0] != hub.user:
        raise HubError(403, f"You don't have the rights to create a {kind} under this namespace")
    url = f"{hub.url}/{'' if kind == 'model' else kind + 's/'}{id}"
    if (kind, id) in hub.repos:
        body = json.dumps({"error": f"You already created this {kind} repo", "url": url}).encode()
        return Answer(409, body, {"Content-Type": "application/json"})
    repo = Repo(kind, id, private=details.get("visibility") == "private", sdk=details.get("sdk"))
    if kind == "space":
        flavor = details.get("hardware") or FREE
        _check_flavor(flavor)
        repo.space = Space(
            repo,
            stage="NO_APP_FILE",
            hardware=None,
            requested=flavor,
            sleep_time=details.get("sleepTimeSeconds", FREE_SLEEP_S if flavor == FREE else None),
            variables={one["key"]: one["value"] for one in details.get("variables", [])},
        )
    hub.repos[kind, id] = repo
    return json_answer({"url": url, "name": id, "id": "0123456789"})


@routes.on("DELETE", "/api/repos/delete", body={"name", "organization", "type"})
def delete(hub: Hub, request: Request) -> Answer:
    body = request.json()
    kind, id = body.get("type", "model"), f"{body.get('organization') or hub.user}/{body['name']}"
    repo = hub.writable(request, kind, id)
    if repo.space is not None:
        repo.space.close()
    del hub.repos[kind, id]
    return json_answer({})


@routes.on("GET", "/api/spaces/{owner}/{name}", query={"expand"})
@routes.on("GET", "/api/spaces/{owner}/{name}/revision/{revision:main}")
def info(hub: Hub, request: Request, owner: str, name: str, revision: str = "main") -> Answer:
    repo = hub.repo(request, "space", f"{owner}/{name}")
    space = space_of(repo)
    return json_answer(
        {
            "_id": "1",
            "id": repo.id,
            "author": owner,
            "sdk": repo.sdk,
            "subdomain": repo.id.replace("/", "-").lower(),
            "host": space.front.url,
            "private": repo.private,
            "sha": repo.head,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "likes": 0,
            "tags": [],
            "siblings": [{"rfilename": path} for path in repo.files],
            "runtime": space.runtime(),
        }
    )


@routes.on("GET", "/api/spaces/{owner}/{name}/runtime")
def runtime(hub: Hub, request: Request, owner: str, name: str) -> Answer:
    space = space_of(hub.repo(request, "space", f"{owner}/{name}"))
    return json_answer(space.runtime(space.look()))


@routes.on("POST", "/api/spaces/{owner}/{name}/hardware", body={"flavor", "sleepTimeSeconds"})
def hardware(hub: Hub, request: Request, owner: str, name: str) -> Answer:
    space = space_of(hub.writable(request, "space", f"{owner}/{name}"))
    body = request.json()
    _check_flavor(body["flavor"])
    if not space.pays and body["flavor"] != FREE:
        raise HubError(402, "Payment required: add a payment method to your account to use this hardware")
    space.ask_hardware(body["flavor"], body.get("sleepTimeSeconds"))
    return json_answer(space.runtime())


def _check_flavor(flavor: str) -> None:
    if flavor not in FLAVORS:
        raise HubError(400, f"Invalid hardware flavor: {flavor}")


@routes.on("POST", "/api/spaces/{owner}/{name}/sleeptime", body={"seconds"})
def sleeptime(hub: Hub, request: Request, owner: str, name: str) -> Answer:
    space = space_of(hub.writable(request, "space", f"{owner}/{name}"))
    if space.requested != FREE:
        seconds = request.json()["seconds"]
        space.sleep_time = None if seconds == -1 else seconds
    return json_answer(space.runtime())


@routes.on("GET", "/api/spaces/{owner}/{name}/variables")
def variables(hub: Hub, request: Request, owner: str, name: str) -> Answer:
    return _variables(space_of(hub.writable(request, "space", f"{owner}/{name}")))


@routes.on("POST", "/api/spaces/{owner}/{name}/variables", body={"key", "value", "description"})
def add_variable(hub: Hub, request: Request, owner: str, name: str) -> Answer:
    space = space_of(hub.writable(request, "space", f"{owner}/{name}"))
    body = request.json()
    space.variables[body["key"]] = body["value"]
    space.restart()
    return _variables(space)


@routes.on("DELETE", "/api/spaces/{owner}/{name}/variables", body={"key"})
def delete_variable(hub: Hub, request: Request, owner: str, name: str) -> Answer:
    space = space_of(hub.writable(request, "space", f"{owner}/{name}"))
    del space.variables[request.json()["key"]]
    space.restart()
    return _variables(space)


def _variables(space: Space) -> Answer:
    updated = "2026-01-01T00:00:00.000Z"
    return json_answer({key: {"value": text, "updatedAt": updated} for key, text in space.variables.items()})


@routes.on("POST", "/api/spaces/{owner}/{name}/secrets", body={"key", "value", "description"})
def add_secret(hub: Hub, request: Request, owner: str, name: str) -> Answer:
    space = space_of(hub.writable(request, "space", f"{owner}/{name}"))
    space.secrets.append(request.json()["key"])
    space.restart()
    return json_answer({})


@routes.on("POST", "/api/spaces/{owner}/{name}/pause")
def pause(hub: Hub, request: Request, owner: str, name: str) -> Answer:
    space = space_of(hub.writable(request, "space", f"{owner}/{name}"))
    space.halt("PAUSED")
    return json_answer(space.runtime())


@routes.on("POST", "/api/spaces/{owner}/{name}/restart", query={"factory"})
def restart(hub: Hub, request: Request, owner: str, name: str) -> Answer:
    space = space_of(hub.writable(request, "space", f"{owner}/{name}"))
    space.rebuild("BUILDING" if "factory" in request.query else "APP_STARTING")
    return json_answer(space.runtime())


@routes.on("GET", "/api/spaces/{owner}/{name}/logs/{which:build|run}")
def logs(hub: Hub, request: Request, owner: str, name: str, which: str) -> Answer:
    space = space_of(hub.writable(request, "space", f"{owner}/{name}"))
    ran = space.run_log if space.run_log is not None else (space.server.log if space.server else [])
    lines = space.build_log if which == "build" else ran
    events = [{"data": line, "timestamp": "2026-01-01T00:00:00.000Z"} for line in lines]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return Answer(200, body.encode(), {"Content-Type": "text/event-stream"})
