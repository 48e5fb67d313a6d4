"""The Hub's HTTP API as a server of its own: routes, a log of what was asked, and no patience with the unknown."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from aiohttp import web

if TYPE_CHECKING:
    from .spaces import Space

TOKEN = "hf_plantedSecretThatMustNeverShow42"
"""The token of the one user; no file, log or report of a run may hold it."""

NO_COMMIT = "0" * 40
_PLACEHOLDER = re.compile(r"\{(\w+)(?::([^}]*))?\}")


class HubError(Exception):
    """An answer the Hub gives on purpose: a refusal the client has to cope with."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, dict(headers or {})


@dataclass(frozen=True)
class Request:
    """One request."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def authorized(self) -> bool:
        return self.headers.get("authorization") == f"Bearer {TOKEN}"

    def json(self) -> Any:
        return json.loads(self.body or b"{}")


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


Handler = Callable[..., Answer]


@dataclass(frozen=True)
class _Route:
    method: str
    pattern: re.Pattern[str]
    query: frozenset[str]
    body: frozenset[str] | None
    handler: Handler


class Routes:
    """The routes of one module; `{x}` is a segment, `{x:a|b}` one of these, `{x:*}` the rest of the path."""

    def __init__(self) -> None:
        self._routes: list[_Route] = []

    def on(
        self, method: str, path: str, *, query: Collection[str] = (), body: Collection[str] | None = ()
    ) -> Callable[[Handler], Handler]:
        """`query` and `body` are the parameters and JSON keys that exist; None: the body is not looked into."""
        pattern = re.compile(_PLACEHOLDER.sub(_group, path))

        def register(handler: Handler) -> Handler:
            fields = None if body is None else frozenset(body)
            self._routes.append(_Route(method, pattern, frozenset(query), fields, handler))
            return handler

        return register

    def find(self, method: str, path: str) -> tuple[_Route, dict[str, str]] | None:
        for route in self._routes:
            if route.method == method and (match := route.pattern.fullmatch(path)):
                return route, {name: unquote(text) for name, text in match.groupdict().items()}
        return None


def _group(match: re.Match[str]) -> str:
    name, kind = match[1], match[2]
    return f"(?P<{name}>{'.+' if kind == '*' else kind or '[^/]+'})"


@dataclass(frozen=True)
class Commit:
    oid: str
    message: str
    time: float = 0.0


@dataclass
class Repo:
    """A repository of any kind; `space` is what only a Space has."""

    kind: str
    id: str
    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    commits: list[Commit] = field(default_factory=list[Commit])
    sdk: str | None = None
    space: Space | None = None

    @property
    def head(self) -> str:
        return self.commits[-1].oid if self.commits else NO_COMMIT


class Hub:
    """What the Hub knows, and everything it was asked."""

    user = "alice"

    def __init__(self) -> None:
        self.url = ""
        self.lock = threading.RLock()
        self.requests: list[Request] = []
        self.problems: list[str] = []
        self.repos: dict[tuple[str, str], Repo] = {}
        self.failures: list[tuple[str, HubError]] = []
        """What goes wrong next: (substring of "METHOD path", the refusal), each used once."""
        self._routes: list[Routes] = []

    # --- for tests

    def asked(self, method: str = "", path: str = "") -> list[Request]:
        """Return the requests of a method whose path holds some text, in order."""
        with self.lock:
            return [one for one in self.requests if one.method.startswith(method) and path in one.path]

    def add_space(
        self, id: str, *, files: Mapping[str, bytes] | None = None, private: bool = False, **state: Any
    ) -> Repo:
        from .spaces import Space

        repo = Repo("space", id, private, dict(files or {}), [Commit("1" * 40, "first")], sdk="docker")
        repo.space = Space(repo=repo, **state)
        repo.space.settle()
        self.repos["space", id] = repo
        return repo

    def add_dataset(self, id: str, *, files: Mapping[str, bytes] | None = None, private: bool = False) -> Repo:
        repo = Repo("dataset", id, private, dict(files or {}), [Commit("1" * 40, "first")])
        self.repos["dataset", id] = repo
        return repo

    def space(self, id: str) -> Space:
        space = self.repos["space", id].space
        assert space is not None
        return space

    def environ(self, folder: Path, token: str | None = TOKEN) -> dict[str, str]:
        """Return what sends the real huggingface_hub of another process here, and nowhere else."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(folder / "hf-home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": token or "",
            "XDG_STATE_HOME": str(folder / "state"),
        }

    def patch(self, monkeypatch: pytest.MonkeyPatch, folder: Path, token: str | None = TOKEN) -> None:
        """Do the same for this process, where it may be imported already."""
        from huggingface_hub import constants

        for name, value in self.environ(folder, token).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        template = f"{self.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "hf-home" / "token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(folder / "hf-home" / "stored_tokens"))
        monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(folder / "hf-home" / "agents.json"), raising=False)

    # --- for routes

    def repo(self, request: Request, kind: str, id: str) -> Repo:
        """Return a repository this request may see; a private one does not exist for others."""
        repo = self.repos.get((kind, id))
        if repo is None or (repo.private and not request.authorized):
            raise HubError(404 if request.authorized else 401, "Repository not found", "RepoNotFound")
        return repo

    def writable(self, request: Request, kind: str, id: str) -> Repo:
        """Return a repository this request may change."""
        repo = self.repo(request, kind, id)
        if not request.authorized:
            raise HubError(401, "Invalid username or password.")
        if id.partition("/")[0] != self.user:
            raise HubError(403, "You don't have the required permissions to perform this action")
        return repo

    def committed(self, repo: Repo) -> None:
        """Say that a commit has changed files: a Space builds anew."""
        if repo.space is not None:
            repo.space.rebuild()

    # --- the server

    def answer(self, request: Request) -> Answer:
        """Answer one request and keep it; the unknown is a problem of the test."""
        with self.lock:
            self.requests.append(request)
            try:
                return self._route(request)
            except HubError as error:
                headers = {"X-Error-Message": error.message, **error.headers}
                if error.code:
                    headers["X-Error-Code"] = error.code
                return json_answer({"error": error.message}, error.status, headers)
            except Exception:
                self.problems.append(f"{request.line}: {traceback.format_exc()}")
                return json_answer({"error": "the stand-in of the Hub failed"}, 500)

    def _route(self, request: Request) -> Answer:
        for index, (where, error) in enumerate(self.failures):
            if where in request.line:
                del self.failures[index]
                raise error
        for routes in self._routes:
            if (match := routes.find(request.method, request.path)) is not None:
                route, names = match
                self._check(request, route)
                return route.handler(self, request, **names)
        self.problems.append(f"unknown route: {request.line}")
        raise HubError(404, f"no such route: {request.line}")

    def _check(self, request: Request, route: _Route) -> None:
        unknown = set(request.query) - route.query
        if route.body is not None and request.body:
            unknown |= set(request.json()) - route.body
        if unknown:
            self.problems.append(f"unknown parameters of {request.line}: {', '.join(sorted(unknown))}")
            raise HubError(400, f"unknown parameters: {', '.join(sorted(unknown))}")

    async def _serve(self, started: threading.Event) -> None:
        async def handle(request: web.Request) -> web.Response:
            split = urlsplit(str(request.rel_url.raw_path_qs))
            received = Request(
                request.method,
                split.path,
                parse_qs(split.query, keep_blank_values=True),
                {name.lower(): text for name, text in request.headers.items()},
                await request.read(),
            )
            answer = await asyncio.to_thread(self.answer, received)
            return web.Response(status=answer.status, body=answer.body, headers=dict(answer.headers))

        app = web.Application(client_max_size=1 << 28)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        started.set()
        await self._ended.wait()
        await runner.cleanup()

    def start(self) -> None:
        from . import spaces

        self._routes.append(spaces.routes)
        try:
            from . import repos
        except ImportError:
            pass
        else:
            self._routes.append(repos.routes)
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True)
        self._thread.start()
        assert started.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)
        with self.lock:
            for repo in self.repos.values():
                if repo.space is not None:
                    repo.space.close()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A Hub for one test; a request it does not know fails the test."""
    hub = Hub()
    hub.start()
    try:
        yield hub
    finally:
        hub.stop()
    assert not hub.problems, "\n".join(hub.problems)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hub for one test; a request it does not know fails the test."""
    with running_hub() as running:
        yield running
