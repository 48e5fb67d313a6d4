"""What a target would start, as text; nothing is started or reached."""

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
_FREE_PORT_NOTE = "# Port 0 stands for a free one, chosen when it starts."


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

    open_target(spec, root=context.root)  # Raises what is wrong with it.
    if spec.name not in _DESCRIBE:
        raise GrammarError(f"target {spec.name} cannot be shown")
    return tuple(_DESCRIBE[spec.name](spec, context))


def _describe_local(spec: TargetSpec, context: TargetContext) -> list[DescriptionPart]:
    from .local.target import LocalTarget

    return _describe_launch(LocalTarget(spec, context).application())


def _describe_launch(served: ServedApplication, role: str = "server") -> list[DescriptionPart]:
    launch = served.launch()
    title = f"{role}, in {launch.folder}, on an open socket at {launch.address}"
    return [DescriptionPart(title, _shell_command(launch.command, launch.environ))]


def _describe_docker(spec: TargetSpec, context: TargetContext) -> list[DescriptionPart]:
    from .docker.target import DockerTarget

    target = DockerTarget(spec, context)
    return [
        _describe_image(target.source),
        DescriptionPart("container", _docker_run_command(target.source, target.options())),
    ]


def _describe_image(source: ImageSource) -> DescriptionPart:
    from .common.files import deploy_file
    from .docker.image import BENCHMARK_TAG, find_build

    arguments = [part for name in source.arguments for part in ("--build-arg", f"{name}={HIDDEN}")]
    if source.name is None:
        folder = str(deploy_file("docker"))
        return DescriptionPart("image", _shell_command(["docker", "build", "--tag", BENCHMARK_TAG, *arguments, folder]))
    if source.is_built:
        build = find_build(source.name, source.root)
        file = str(build.folder / build.dockerfile)
        words = ["docker", "build", "--tag", build.tag, "--file", file, *arguments, str(build.folder)]
        return DescriptionPart("image", _shell_command(words))
    pull_words = {"missing": "pulled where the engine does not have it", "always": "pulled", "never": "not pulled"}
    return DescriptionPart("image", f"{source.name} ({pull_words[source.pull]})")


def _docker_run_command(source: ImageSource, options: ContainerOptions) -> str:
    """Return the docker command that does what the target does through the engine's API."""
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
    return _shell_command([*words, source.name if source.name and not source.is_built else BENCHMARK_TAG])


def _describe_envoy(spec: TargetSpec, context: TargetContext) -> list[DescriptionPart]:
    from .envoy.config import Backend, render
    from .envoy.container_replicas import ContainerReplicas
    from .envoy.replicas import LocalReplicas, replica_address, resolve_backend
    from .envoy.spec import UrlOptions
    from .envoy.target import EnvoyTarget

    target = EnvoyTarget(spec, context)
    urls = target.options.urls if isinstance(target.options, UrlOptions) else ()
    replicas, numbers = target.replicas(), range(target.options.replicas)
    if isinstance(replicas, LocalReplicas):
        parts = [part for n in numbers for part in _describe_launch(replicas.servers[n], f"server {n + 1}")]
    elif isinstance(replicas, ContainerReplicas):
        containers = [
            DescriptionPart(f"container {n + 1}", _docker_run_command(replicas.source, replicas.options(n)))
            for n in numbers
        ]
        parts = [_describe_image(replicas.source), *containers]
    else:
        parts = [DescriptionPart("servers, which run already", "\n".join(urls))]
    backends = tuple(resolve_backend(url) for url in urls)
    backends = backends or tuple(Backend(replica_address(number), 0) for number in numbers)
    return [
        *parts,
        DescriptionPart("Envoy's configuration", f"{_FREE_PORT_NOTE}\n{render(target.settings(backends)).rstrip()}"),
    ]


def _describe_provider(spec: TargetSpec, context: TargetContext) -> list[DescriptionPart]:
    from .provider.target import ProviderTarget

    request = ProviderTarget(spec, context).provider_request()
    server_request = request.server_request
    arguments = [
        f"{key}={HIDDEN if names_secret(key) else redact_text(text)}" for key, text in server_request.arguments.items()
    ]
    lines = [f"class      {request.provider}", *(f"argument   {text}" for text in arguments)]
    lines += [f"variable   {name}={HIDDEN}" for name in server_request.env]
    lines += [f"servers    {server_request.replicas}"] if server_request.replicas is not None else []
    lines += [f"workers    {server_request.workers}"] if server_request.workers is not None else []
    lines += [f"import     {path}" for path in request.paths]
    return [DescriptionPart("provider, in a process of its own", "\n".join(lines))]


def _describe_slurm(spec: TargetSpec, context: TargetContext) -> list[DescriptionPart]:
    from .common.files import deploy_file
    from .slurm.spec import SERVE_SCRIPT, SlurmSpec, render, render_attached

    slurm_spec = SlurmSpec.parse(spec)
    request = slurm_spec.example_request(context.root, largest_batch=context.largest_batch)
    hidden = dict.fromkeys(slurm_spec.env, HIDDEN)
    title = "SCRIPT"
    if slurm_spec.attached_job is not None:
        command = DescriptionPart(
            "command", _shell_command(["bash", "SCRIPT"], {"SLURM_JOB_ID": str(slurm_spec.attached_job), **hidden})
        )
        title += "" if slurm_spec.nodes else ", for one node; nodes=N shows that for several"
        script = render_attached(request)
    else:
        command = DescriptionPart("command", _shell_command(["sbatch", "--parsable", "--export=ALL", "SCRIPT"], hidden))
        script = render(request)
    serve_script = DescriptionPart("what the script hands over to, on every node", str(deploy_file(SERVE_SCRIPT)))
    return [command, DescriptionPart(title, script.rstrip()), serve_script]


def _describe_spaces(spec: TargetSpec, context: TargetContext) -> list[DescriptionPart]:
    from .spaces.deploy import DOCKERFILE, space_files
    from .spaces.spec import FREE, MAX_ENVS, NEVER, SAFE_SLEEP_S, WORKERS
    from .spaces.target import SpacesTarget
    from .spaces.temporary import NewSpace

    target = SpacesTarget(spec, context)
    space_spec = target.space_spec
    new_space = NewSpace.from_spec(space_spec)
    variables = new_space.variables if space_spec.temporary else space_spec.variables
    sleep_time = space_spec.sleep_time or (SAFE_SLEEP_S if space_spec.hardware not in (None, FREE) else None)
    lines = [f"hardware    {new_space.hardware}"] if space_spec.hardware or space_spec.temporary else []
    lines += [] if sleep_time is None else [f"sleep time  {'never' if sleep_time == NEVER else f'{sleep_time} s'}"]
    lines += [
        f"variable    {name}={text if name in (WORKERS, MAX_ENVS) else HIDDEN}" for name, text in variables.items()
    ]
    if not space_spec.temporary:
        if not lines:
            return [DescriptionPart("nothing is set on the Space; it is measured as it is", str(space_spec.repo_id))]
        text = "\n".join([f"Space       {space_spec.repo_id}", *lines])
        return [DescriptionPart("set on the Space where it differs, and put back afterwards", text)]
    name = space_spec.repo_id or "USER/openenv-scale-…"
    files = space_files(target.source(), name.partition("/")[2])
    return [
        DescriptionPart(
            "a private Space, made for the run and deleted after it", "\n".join([f"Space       {name}", *lines])
        ),
        DescriptionPart(f"its files: {target.source().description}", "\n".join(sorted(files))),
        DescriptionPart(DOCKERFILE, files[DOCKERFILE].decode("utf-8", "replace").rstrip()),
    ]


def _describe_url(spec: TargetSpec, context: TargetContext) -> list[DescriptionPart]:
    return [DescriptionPart("nothing is started; these are measured", "\n".join(map(redact_url, spec.urls)))]


def _shell_command(words: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
    """Return a command as a shell takes it, each variable on a line of its own."""
    variables = [f"{name}={text if text == HIDDEN else shlex.quote(text)} \\" for name, text in (environ or {}).items()]
    return "\n".join([*sorted(variables), shlex.join(words)])


_DESCRIBE: Mapping[str, Callable[[TargetSpec, TargetContext], list[DescriptionPart]]] = {
    "docker": _describe_docker,
    "envoy": _describe_envoy,
    "local": _describe_local,
    "provider": _describe_provider,
    "slurm": _describe_slurm,
    "spaces": _describe_spaces,
    "url": _describe_url,
}
