"""`spaces:USER/NAME`: a Space on the Hugging Face Hub, attached to, set up for the run, or made for it."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.target_spec import TargetSpec
from pytest_openenv_scale.core.text import LOG_LINES
from pytest_openenv_scale.hub.access import HubError, current_token, without_secrets
from pytest_openenv_scale.targets.common.application import BUILT_IN, MANIFEST, missing_environment
from pytest_openenv_scale.targets.common.base import DescriptionPart, StartedTarget, shown_variables
from pytest_openenv_scale.targets.common.leftovers import Leftover, deferring_interrupts, graceful_signals
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

from .api import (
    RETRY_S,
    AppliedChanges,
    HubTroubleError,
    SpaceApi,
    connect_to_hub,
    ignoring_warnings,
    space_url,
    wait_until_running,
    with_log,
)
from .api import START_S as RUNNING_S
from .deploy import DOCKERFILE, SpaceSource, create_or_update, space_files
from .settings import (
    FREE,
    NEVER,
    VCPUS,
    PendingChange,
    SpaceSpec,
    change_settings,
    new_pending_change,
    parse_space,
    pending_changes,
    planned_settings,
    restore,
    settings_words,
)

if TYPE_CHECKING:
    from huggingface_hub import SpaceInfo


_LABEL = "hf-spaces"


class SpacesTarget(StartedTarget):
    """A Space set up as the target asks; afterwards its settings are put back, a temporary one is deleted.

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
        name = choose_temporary_name(api, space_spec) if space_spec.temporary else space_spec.repo_id
        space = SpaceApi(api, str(name), show_progress)
        began = time.monotonic()
        if space_spec.temporary:
            source = self.source()
            source.check()
            create_temporary(space, space_spec, self.context.run_id, stack, show_progress)
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
        start_timeout, show = self.space_spec.start_timeout, self.context.show_status
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
            raise TargetError(with_log(text, space.log(LOG_LINES))) from None


def _authorization(info: SpaceInfo) -> dict[str, str]:
    """Return the header a private Space asks for; the code of anybody else's Space never gets the token."""
    token = current_token() if info.private else None
    return {"Authorization": f"Bearer {token}"} if token else {}


def _cores(hardware: str | None, replicas: int) -> int | None:
    """Return the processors the name of the hardware stands for; None where that is not known."""
    vcpus = VCPUS.get(hardware or "")
    return None if vcpus is None else vcpus * replicas


MARK_VARIABLE = "OPENENV_SCALE_TEMPORARY"
"""The variable that distinguishes a Space made for a run from one of the same name that somebody made later."""


def choose_temporary_name(api: Any, spec: SpaceSpec) -> str:
    """Return USER/NAME of the temporary Space `spec` asks for, with a name of ours where it has none.

    Raises:
        TargetError: the token is missing or not accepted.
    """
    if current_token() is None:
        raise TargetError(
            "target spaces: a temporary Space needs a token with write access; run hf auth login, or set HF_TOKEN"
        )
    if spec.repo_id is not None:
        return spec.repo_id
    user: Any = SpaceApi(api, "a temporary Space").request("find out whose token it is", api.whoami)
    return f"{user['name']}/openenv-scale-{secrets.token_hex(3)}"


def create_temporary(
    space: SpaceApi, spec: SpaceSpec, run_id: str | None, stack: ExitStack, show_progress: Callable[[str], None]
) -> None:
    """Make an empty private Space with the settings of `spec` and have `stack` delete it.

    Raises:
        TargetError: there is one of that name, or the Hub refuses.
    """
    if space.exists():
        raise TargetError(_name_taken(space))
    entry = new_pending_change(space.api.endpoint, space.repo_id, run_id, temporary=True)
    new = planned_settings(spec)
    variables = {**new.variables, MARK_VARIABLE: entry.id}

    def make() -> None:
        entry.write()
        try:
            space.request(
                "make it",
                lambda: space.api.create_repo(
                    space.repo_id,
                    repo_type="space",
                    private=True,
                    space_sdk="docker",
                    space_hardware=None if new.hardware == FREE else new.hardware,
                    space_sleep_time=new.sleep_time,
                    space_variables=[{"key": name, "value": text} for name, text in variables.items()],
                ),
            )
        except HubTroubleError as error:
            if error.status is not None and error.status < 500:
                entry.remove()  # Refused: there is nothing of ours.
            if error.status == 409:
                raise TargetError(_name_taken(space)) from None
            raise

    # What a request makes is known to be there before an interrupt is raised.
    deferring_interrupts(make)
    stack.callback(_delete_at_end, space, entry, show_progress)
    asleep = "" if new.sleep_time in (None, NEVER) else f"; sleeps after {new.sleep_time} s without a request"
    show_progress(f"spaces: made {space.repo_id} for this run, private, {new.hardware}{asleep}")


def delete(space: SpaceApi, entry: PendingChange) -> bool:
    """Delete the Space of `entry`; False where it is gone, or is another one of its name.

    Raises:
        TargetError: the Hub refuses.
    """
    if not space.exists() or space.variables().get(MARK_VARIABLE) != entry.id:
        return False
    space.request(
        "delete it",
        lambda: space.api.delete_repo(space.repo_id, repo_type="space", missing_ok=True),
        RETRY_S,
    )
    return True


def _delete_at_end(space: SpaceApi, entry: PendingChange, show_progress: Callable[[str], None]) -> None:
    def work() -> None:
        if delete(space, entry):
            show_progress(f"spaces: deleted {space.repo_id}")
        entry.remove()

    try:
        deferring_interrupts(work)
    except TargetError as error:
        raise TargetError(f"{error}; openenv-scale gc spaces deletes it") from None


def _name_taken(space: SpaceApi) -> str:
    return (
        f"target spaces: {space.repo_id} exists, and a temporary Space is deleted after the run; "
        "choose another name, or leave out temporary"
    )


def leftover_spaces() -> Iterator[Leftover]:
    """Yield temporary Spaces and changed settings whose run is gone, but for those of a Space that another run uses.

    What was changed on another Hub than the one HF_ENDPOINT names cannot be removed.

    Raises:
        TargetError: the Hub cannot be asked.
    """
    entries = pending_changes()
    leftovers = [entry for entry in entries if entry.is_leftover]
    if not leftovers:
        return
    api = connect_to_hub()
    busy = {entry.repo_id for entry in entries if not entry.is_leftover}
    for entry in leftovers:
        if entry.endpoint == api.endpoint and entry.repo_id not in busy:
            yield Leftover(_leftover_line(entry), partial(_undo_entry, SpaceApi(api, entry.repo_id, _report), entry))
    for hub in sorted({entry.endpoint for entry in leftovers} - {api.endpoint}):
        yield Leftover(f"spaces: something is left on {hub}; set HF_ENDPOINT to it", None)


def _undo_entry(space: SpaceApi, entry: PendingChange) -> bool:
    """Undo one entry and delete its file; False where its Space is gone, or is another one."""
    undone = True
    if entry.temporary:
        undone = delete(space, entry)
    else:
        try:
            restore(space, entry.before)
        except HubTroubleError as error:
            if error.status not in (401, 404) or space.exists():
                raise
            undone = False
    entry.remove()
    return undone


def _report(line: str) -> None:
    """Print to stderr, as stdout is for the list of what was collected."""
    print(line, file=sys.stderr)


def _leftover_line(entry: PendingChange) -> str:
    run = entry.run_id or "unknown"
    if entry.temporary:
        return f"temporary Space {entry.repo_id} (run {run})"
    return f"changed settings of the Space {entry.repo_id}: {', '.join(settings_words(entry.before))} (run {run})"
