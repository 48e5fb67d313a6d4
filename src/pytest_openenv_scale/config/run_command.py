"""`openenv-scale run` and the pytest command that it stands for: each made of the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .options import OPTIONS, RUN_ARGUMENTS

RUN = ("openenv-scale", "run")
_PREFIX = "--openenv-"
_SERVERS = tuple(f"{_PREFIX}{name}" for name in ("url", "target"))


def pytest_arguments(servers: Sequence[str], values: Mapping[str, str | list[str] | bool | None]) -> list[str]:
    """Return the arguments of pytest that measure these servers; `values` are those of options, by their ini keys.

    One that is written as a URL is one that runs already; of several each is a target.
    """
    words = [*RUN_ARGUMENTS]
    is_url = len(servers) == 1 and ("://" in servers[0] or servers[0].strip().startswith("env:"))
    words += [f"{_SERVERS[0 if is_url else 1]}={server}" for server in servers]
    for option in OPTIONS:
        value = values.get(option.ini)
        if value is True:
            words.append(option.flag)
        elif value:
            words += [f"{option.flag}={text}" for text in ([value] if isinstance(value, str) else value)]
    return words


def typed_command(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the `openenv-scale run` that arguments of pytest which begin with `RUN_ARGUMENTS` were typed as."""
    words = arguments[len(RUN_ARGUMENTS) :]
    # Each option of ours is one word, and those of pytest follow.
    own = next((at for at, word in enumerate(words) if not word.startswith(_PREFIX)), len(words))
    passed_on = ["--", *words[own:]] if words[own:] else []
    return (*RUN, *run_options(words[:own]), *passed_on)


def run_options(words: Sequence[str]) -> Iterator[str]:
    """Yield options of pytest as `openenv-scale run` takes them: without our prefix, servers without an option."""
    for word in words:
        name, equals, value = word.partition("=")
        if name in _SERVERS:
            if equals:
                yield value
        elif name.startswith(_PREFIX):
            yield f"--{word.removeprefix(_PREFIX)}"
        else:
            yield word
