"""`spaces:USER/NAME`: a Space on the Hugging Face Hub, attached to, set up for the run, or made for it."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.target_spec import TargetSpec
from pytest_openenv_scale.hub.access import HubError, current_token, without_secrets
from pytest_openenv_scale.targets.common.application import BUILT_IN, MANIFEST, missing_environment
from pytest_openenv_scale.targets.common.base import DescriptionPart, StartedTarget, shown_variables
from pytest_openenv_scale.targets.common.leftovers import graceful_signals
from pytest_openenv_scale.targets.common.options import TargetContext, settings_of
from pytest_openenv_scale.targets.common.readiness import (
    TIMEOUT_OPTION,
    NotReadyError,
    Watch,
    attach_s,
    server_limit,
    start_s,
    wait_until_ready,
)

from . import temporary
from .api import START_S as RUNNING_S
from .api import (
    AppliedChanges,
    SpaceApi,
    connect_to_hub,
    ignoring_warnings,
    space_url,
    wait_until_running,
    with_log,
)
from .deploy import DOCKERFILE, SpaceSource, create_or_update, space_files
from .settings import change_settings, planned_settings
from .spec import NEVER, VCPUS, parse_space

if TYPE_CHECKING:
    from huggingface_hub import SpaceInfo

_LABEL = "hf-spaces"
_LOG_LINES = 10


class SpacesTarget(StartedTarget):
    """A Space that runs as it is asked to, and is afterwards as it was: its settings put back, a temporary one deleted.

    Raises:
        GrammarError: the specification names no Space, or its keys do not go together.
    """

    def __init__(self, spec: TargetSpec, context: TargetContext) -> None:
        self.space_spec = parse_space(spec)
        super().__init__(spec, context, replace(self.space_spec, hardware=None))  # What it got, not what was asked for.

    def describe(self) -> list[DescriptionPart]:
        """Return what would be started; see `StartedTarget`."""
        space_spec = self.space_spec
        plan = planned_settings(space_spec)
        sleep_time = "never" if plan.sleep_time == NEVER else f"{plan.sleep_time} s"
        lines = [f"hardware    {plan.hardware}"] if plan.hardware else []
        lines += [f"sleep time  {sleep_time}"] if plan.sleep_time is not None else []
        variables = shown_variables({name: text or "" for name, text in plan.variables.items()})
        lines += [f"variable    {name}={text}" for name, text in variables.items()]
        if not space_spec.temporary:
            if not lines:
                return [
                    DescriptionPart("nothing is set on the Space; it is measured as it is", str(space_spec.repo_id))
                ]
            text = "\n".join([f"Space       {space_spec.repo_id}", *lines])
            return [DescriptionPart("set on the Space where it differs, and put back afterwards", text)]
        name = space_spec.repo_id or "USER/openenv-scale-…"
        files = space_files(self.source(), name.partition("/")[2])
        return [
            DescriptionPart(
                "a private Space, made for the run and deleted after it", "\n".join([f"Space       {name}", *lines])
            ),
            DescriptionPart(f"its files: {self.source().description}", "\n".join(sorted(files))),
            DescriptionPart(DOCKERFILE, files[DOCKERFILE].decode("utf-8", "replace").rstrip()),
        ]

    def start(self, stack: ExitStack) -> Endpoint:
        """Return once the Space runs as asked and has answered a session; `stack` puts it back as it was."""
        space_spec, show_progress = self.space_spec, self.context.show_progress
        api = connect_to_hub()
        stack.enter_context(graceful_signals)
        name = temporary.choose_name(api, space_spec) if space_spec.temporary else space_spec.repo_id
        space = SpaceApi(api, str(name), show_progress)
        began = time.monotonic()
        if space_spec.temporary:
            source = self.source()
            source.check()
            temporary.create(space, space_spec, self.context.run_id, stack, show_progress)
            self._deploy(space, source)
            info = space.info()
            note = f"{space.repo_id} is made for this run, and deleted after it"
            changed = AppliedChanges(space_spec.hardware, notes=(note,))
        else:
            info = space.info()
            changed = change_settings(space, space_spec, stack, self.context.run_id, show_progress)
        return self._attach(space, info, changed, began)

    def source(self) -> SpaceSource:
        """Return what a temporary Space is made of.

        Raises:
            TargetError: nothing names it.
        """
        app, folder, context = self.space_spec.app, self.space_spec.folder, self.context
        if app == BUILT_IN:
            return SpaceSource()
        if folder is not None:
            return SpaceSource.parse(app=app, folder=folder, root=context.base)
        if app is None and not (context.root / MANIFEST).is_file():
            raise TargetError(missing_environment(context, "spaces"))
        return SpaceSource(context.root, app)

    def _deploy(self, space: SpaceApi, source: SpaceSource) -> None:
        self.context.show_progress(f"spaces: uploading {source.description} to {space.repo_id}")
        try:
            with ignoring_warnings():
                create_or_update(space.api, space.repo_id, source, private=True)
        except (HubError, TargetError) as error:
            raise TargetError(f"target spaces: {error}") from None

    def _attach(self, space: SpaceApi, info: SpaceInfo, changed: AppliedChanges, began: float) -> Endpoint:
        space_spec, url = self.space_spec, space_url(info)
        if url is None:
            raise TargetError(f"target spaces: {space.repo_id} has no address; is it a Docker Space with files?")
        headers = {**_authorization(info), **self.context.headers}
        was_running = info.runtime is not None and info.runtime.stage == "RUNNING"
        runtime = wait_until_running(
            space,
            changed,
            lambda: server_limit(url, headers, self.context.network),
            self.context.show_progress,
            start_s=start_s(space_spec.start_timeout, self.context, RUNNING_S),
        )
        limits: dict[str, str | int] = {}
        with suppress(TargetError):  # The token may not be one that may read them.
            limits = settings_of(space.variables())
        endpoint = self.endpoint(
            [url],
            _LABEL,
            cores=_cores(runtime.hardware, runtime.replicas),
            hosts=runtime.replicas,
            limits=limits,
            headers=headers,
            hardware=runtime.hardware,
            notes=changed.notes,
            log_reader=space.log,
            exit_reader=space.exit_status,
        )
        started = space_spec.temporary or changed.changes_hardware or changed.restarts or not was_running
        answered_s = self._wait_until_ready(space, info, endpoint, started)
        return replace(endpoint, startup_s=time.monotonic() - began if started else answered_s)

    def _wait_until_ready(self, space: SpaceApi, info: SpaceInfo, endpoint: Endpoint, started: bool) -> float:
        start_timeout, show = self.space_spec.start_timeout, self.context.show_progress
        prefix = f"spaces: waiting for a session of {space.repo_id}"
        if started or start_timeout:
            wait_s, watch = start_s(start_timeout, self.context), Watch(show=show, prefix=prefix)
        else:
            wait_s, watch = attach_s(self.context), Watch(TIMEOUT_OPTION, show=show, prefix=prefix)
        try:
            return wait_until_ready(
                endpoint.urls, endpoint.headers, wait_s, session=self.context.first_session, watch=watch
            )
        except NotReadyError as error:
            message = without_secrets(str(error))
            if info.sdk not in (None, "docker"):
                message += f"; it is a {info.sdk} Space, and OpenEnv environments are docker ones"
            text = f"target {self.spec}: {space.repo_id} runs, but {message}"
            raise TargetError(with_log(text, space.log(_LOG_LINES))) from None


def _authorization(info: SpaceInfo) -> dict[str, str]:
    """Return the header a private Space asks for; the code of anybody else's Space never gets the token."""
    token = current_token() if info.private else None
    return {"Authorization": f"Bearer {token}"} if token else {}


def _cores(hardware: str | None, replicas: int) -> int | None:
    """Return the processors the name of the hardware stands for; None where that is not known."""
    vcpus = VCPUS.get(hardware or "")
    return None if vcpus is None else vcpus * replicas
