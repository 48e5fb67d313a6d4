"""What a target would start, as text: asked of what starts it, and nothing is started or reached."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.target_spec import TargetSpec, names_secret, redact_url
from pytest_openenv_scale.core.text import redact_text

from .common.options import TargetContext

if TYPE_CHECKING:
    from .docker.container import ContainerOptions
    from .docker.image import ImageSource
    from .local.application import ServedApplication

HIDDEN = "***"
_FREE = "# Port 0 stands for a free one, chosen when it starts."


@dataclass(frozen=True)
class DescriptionPart:
    """One thing that would be started, or what it reads: a command, an environment, a script, a configuration."""

    title: str
    text: str


def describe(spec: TargetSpec, context: TargetContext) -> tuple[DescriptionPart, ...]:
    """Return what `spec` would start; values that may be secret are hidden.

    Raises:
        GrammarError: there is no such target, it has no such key, or a value cannot be used.
        TargetError: what it names is not there.
    """
    from . import open_target

    open_target(spec, root=context.root)  # Says what is wrong with it.
    if spec.name not in _DESCRIBE:
        raise GrammarError(f"target {spec.name} cannot be shown")
    return tuple(_DESCRIBE[spec.name](spec, context))


def _local(spec: TargetSpec, context: TargetContext) -> list[DescriptionPart]:
    from .local.target import LocalTarget

    return _launched(LocalTarget(spec, context).application())


def _launched(served: ServedApplication, which: str = "server") -> list[DescriptionPart]:
    launch = served.launch()
    title = f"{which}, in {launch.folder}, on an open socket at {launch.address}"
    return [DescriptionPart(title, _command(launch.command, launch.environ))]


def _docker(spec: TargetSpec, context: TargetContext) -> list[DescriptionPart]:
    from .docker.target import DockerTarget

    target = DockerTarget(spec, context)
    return [_image(target.source), DescriptionPart("container", _docker_run(target.source, target.options()))]


def _image(source: ImageSource) -> DescriptionPart:
    from .common.files import deploy_file
    from .docker.image import BENCHMARK_TAG, build_of

    arguments = [part for name in source.arguments for part in ("--build-arg", f"{name}={HIDDEN}")]
    if source.name is None:
        folder = str(deploy_file("docker"))
        return DescriptionPart("image", _command(["docker", "build", "--tag", BENCHMARK_TAG, *arguments, folder]))
    if source.is_built:
        build = build_of(source.name, source.root)
        file = str(build.folder / build.dockerfile)
        words = ["docker", "build", "--tag", build.tag, "--file", file, *arguments, str(build.folder)]
        return DescriptionPart("image", _command(words))
    said = {"missing": "pulled where the engine does not have it", "always": "pulled", "never": "not pulled"}
    return DescriptionPart("image", f"{source.name} ({said[source.pull]})")


def _docker_run(source: ImageSource, options: ContainerOptions) -> str:
    """Return the command that does the same as what the engine is told through its API."""
    from .docker.image import BENCHMARK_TAG

    words = ["docker", "run", "--detach", "--label", "openenv-scale.run=RUN_ID"]
    if options.network == "host":
        words += ["--network", "host"]
    else:
        words += ["--publish", f"{options.address}::{options.port or '8000'}"]
    for name, text in options.env.items():
        words += ["--env", f"{name}={text if name in ('WORKERS', 'MAX_CONCURRENT_ENVS') else HIDDEN}"]
    limits: Mapping[str, object] = {
        "--cpus": options.cpus and f"{options.cpus:g}",
        "--memory": options.memory,
        "--ulimit": options.nofile and f"nofile={options.nofile}:{options.nofile}",
        "--gpus": options.gpu and (options.gpu if options.gpu == "all" else f"device={options.gpu}"),
    }
    for name, limit in limits.items():
        words += [name, str(limit)] if limit is not None else []
    return _command([*words, source.name if source.name and not source.is_built else BENCHMARK_TAG])


def _envoy(spec: TargetSpec, context: TargetContext) -> list[DescriptionPart]:
    from .envoy.config import Backend, render
    from .envoy.container_replicas import ContainerReplicas
    from .envoy.replicas import LocalReplicas, replica_address, resolved
    from .envoy.target import EnvoyTarget

    target = EnvoyTarget(spec, context)
    replicas, numbers = target.replicas(), range(target.asked.replicas)
    if isinstance(replicas, LocalReplicas):
        parts = [part for n in numbers for part in _launched(replicas.servers[n], f"server {n + 1}")]
    elif isinstance(replicas, ContainerReplicas):
        run = [
            DescriptionPart(f"container {n + 1}", _docker_run(replicas.source, replicas.options(n))) for n in numbers
        ]
        parts = [_image(replicas.source), *run]
    else:
        parts = [DescriptionPart("servers, which run already", "\n".join(target.asked.urls))]
    backends = tuple(resolved(url) for url in target.asked.urls)
    backends = backends or tuple(Backend(replica_address(number), 0) for number in numbers)
    return [*parts, DescriptionPart("Envoy's configuration", f"{_FREE}\n{render(target.settings(backends)).rstrip()}")]


def _provider(spec: TargetSpec, context: TargetContext) -> list[DescriptionPart]:
    from .provider.target import ProviderTarget

    order = ProviderTarget(spec, context).order()
    asked = order.asked
    arguments = [f"{key}={HIDDEN if names_secret(key) else redact_text(text)}" for key, text in asked.arguments.items()]
    lines = [f"class      {order.provider}", *(f"argument   {text}" for text in arguments)]
    lines += [f"variable   {name}={HIDDEN}" for name in asked.env]
    lines += [f"servers    {asked.replicas}"] if asked.replicas is not None else []
    lines += [f"workers    {asked.workers}"] if asked.workers is not None else []
    lines += [f"import     {path}" for path in order.paths]
    return [DescriptionPart("provider, in a process of its own", "\n".join(lines))]


def _slurm(spec: TargetSpec, context: TargetContext) -> list[DescriptionPart]:
    from .common.files import deploy_file
    from .slurm.spec import SERVES, SlurmSpec, render, render_attached

    asked = SlurmSpec(spec)
    request = asked.example_request(context.root, largest_batch=context.largest_batch)
    hidden = dict.fromkeys(asked.given.env, HIDDEN)
    title = "SCRIPT"
    if asked.attached is not None:
        command = DescriptionPart(
            "command", _command(["bash", "SCRIPT"], {"SLURM_JOB_ID": str(asked.attached), **hidden})
        )
        title += "" if asked.nodes else ", for one node; nodes=N shows that for several"
        script = render_attached(request)
    else:
        command = DescriptionPart("command", _command(["sbatch", "--parsable", "--export=ALL", "SCRIPT"], hidden))
        script = render(request)
    serves = DescriptionPart("what the script hands over to, on every node", str(deploy_file(SERVES)))
    return [command, DescriptionPart(title, script.rstrip()), serves]


def _spaces(spec: TargetSpec, context: TargetContext) -> list[DescriptionPart]:
    from .spaces.deploy import DOCKERFILE, space_files
    from .spaces.spec import FREE, MAX_ENVS, NEVER, SAFE_SLEEP_S, WORKERS
    from .spaces.target import SpacesTarget
    from .spaces.temporary import NewSpace

    target = SpacesTarget(spec, context)
    asked = target.asked
    new = NewSpace.asked(asked)
    variables = new.variables if asked.temporary else asked.variables
    sleeps = asked.sleep_time or (SAFE_SLEEP_S if asked.hardware not in (None, FREE) else None)
    lines = [f"hardware    {new.hardware}"] if asked.hardware or asked.temporary else []
    lines += [] if sleeps is None else [f"sleep time  {'never' if sleeps == NEVER else f'{sleeps} s'}"]
    lines += [
        f"variable    {name}={text if name in (WORKERS, MAX_ENVS) else HIDDEN}" for name, text in variables.items()
    ]
    if not asked.temporary:
        if not lines:
            return [DescriptionPart("nothing is set on the Space; it is measured as it is", str(asked.repo_id))]
        text = "\n".join([f"Space       {asked.repo_id}", *lines])
        return [DescriptionPart("set on the Space where it differs, and put back afterwards", text)]
    name = asked.repo_id or "USER/openenv-scale-…"
    files = space_files(target.source(), name.partition("/")[2])
    return [
        DescriptionPart(
            "a private Space, made for the run and deleted after it", "\n".join([f"Space       {name}", *lines])
        ),
        DescriptionPart(f"its files: {target.source().says}", "\n".join(sorted(files))),
        DescriptionPart(DOCKERFILE, files[DOCKERFILE].decode("utf-8", "replace").rstrip()),
    ]


def _url(spec: TargetSpec, context: TargetContext) -> list[DescriptionPart]:
    return [DescriptionPart("nothing is started; these are measured", "\n".join(map(redact_url, spec.urls)))]


def _command(words: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
    """Return a command as a shell takes it, each variable on a line of its own."""
    variables = [f"{name}={text if text == HIDDEN else shlex.quote(text)} \\" for name, text in (environ or {}).items()]
    return "\n".join([*sorted(variables), shlex.join(words)])


_DESCRIBE: Mapping[str, Callable[[TargetSpec, TargetContext], list[DescriptionPart]]] = {
    "docker": _docker,
    "envoy": _envoy,
    "local": _local,
    "provider": _provider,
    "slurm": _slurm,
    "spaces": _spaces,
    "url": _url,
}
