"""`local[:module:app|:PATH|:builtin]`: an ASGI application in hypercorn or uvicorn on this machine."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.errors import GrammarError, TargetError
from pytest_openenv_scale.core.system import usable_cores
from pytest_openenv_scale.core.target_spec import TargetSpec
from pytest_openenv_scale.targets.common.base import DescriptionPart, StartedTarget
from pytest_openenv_scale.targets.common.options import (
    TargetContext,
    TargetOptions,
    count,
    is_path,
    option,
    read_options,
    tcp_port,
)

from .application import ServedApplication, ServerOptions, backlog_notes, check_options


@dataclass(frozen=True)
class LocalOptions(TargetOptions, ServerOptions):
    """The keys of the target."""

    host: str = option(default="127.0.0.1")
    port: int | None = option(tcp_port)
    limit_concurrency: int | None = option(count)


class LocalTarget(StartedTarget):
    """Serves an application in a child process for as long as the context lasts."""

    def __init__(self, spec: TargetSpec, context: TargetContext) -> None:
        options = read_options(spec, LocalOptions)
        super().__init__(spec, context, options)
        self._folder = spec.argument if spec.argument and is_path(spec.argument) else None
        app = spec.argument if self._folder is None else None
        if options.app and app:
            raise GrammarError("target local: the app is given twice; write local:module:app or app=module:app")
        self.options = replace(options, app=options.app or app)
        check_options("local", self.options)

    def application(self) -> ServedApplication:
        """Return what is served, before it is started.

        Raises:
            TargetError: there is no such folder, or no `openenv.yaml` that names an app.
        """
        root = self.context.root if self._folder is None else self._find_folder(Path(self._folder).expanduser())
        return ServedApplication(
            self.options,
            self.context if root == self.context.root else replace(self.context, root=root, searched=()),
            target=self.spec,
            host=self.options.host,
            port=self.options.port,
            log_path=self.context.log_path,
        )

    def _find_folder(self, path: Path) -> Path:
        bases = (Path.cwd(), self.context.base)
        folder = next((base / path for base in bases if (base / path).is_dir()), None)
        if folder is None:
            searched = "" if path.is_absolute() else f" from {' or '.join(map(str, dict.fromkeys(bases)))}"
            raise TargetError(f"target local: there is no folder {self._folder!r}{searched} to serve")
        return folder.resolve()

    def describe(self) -> list[DescriptionPart]:
        """Return what would be started; see `StartedTarget`."""
        return [self.application().describe()]

    def start(self, stack: ExitStack) -> Endpoint:
        """Start the server and return once it has answered a session."""
        served = self.application()
        began = time.monotonic()
        stack.enter_context(served)
        endpoint = self.endpoint(
            [served.url],
            f"local-{self.options.server}",
            served.process,
            cores=usable_cores(),
            hosts=1,
            limits=served.limits,
            session_settings=served.session_settings,
            notes=(*served.application.notes, *backlog_notes(self.context.largest_batch)),
        )
        late_notes = served.wait(endpoint.headers)
        return replace(endpoint, startup_s=time.monotonic() - began, notes=(*endpoint.notes, *late_notes))
