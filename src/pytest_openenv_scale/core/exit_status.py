"""How a server, or whatever runs it, ended: a value for rules to ask, with the sentence of whoever told."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, replace
from typing import Literal, Self

from .serialization import Jsonable

_SHELL = 128
"""A shell, and a container engine, tell of a process killed by signal N as exit code 128 + N."""


@dataclass(frozen=True, slots=True)
class ExitStatus(Jsonable):
    """How something ended that served; `text` says it in one line: "exited with code 1".

    `kind` is `exited` (with `code`), `killed` (by `signal`, a name such as SIGKILL), `stage` (a Space that left its
    stage RUNNING, for `stage`), `job` (a job of Slurm that ended as `stage`) or `other`. `out_of_memory` is set where
    whoever runs it says that it was killed for lack of memory.
    """

    kind: Literal["exited", "killed", "stage", "job", "other"]
    text: str
    code: int | None = None
    signal: str | None = None
    out_of_memory: bool = False
    stage: str | None = None

    @classmethod
    def from_returncode(cls, code: int) -> Self:
        """Read a return code of `subprocess`: negative for a signal."""
        if code >= 0:
            name = _signal_name(code - _SHELL) if code > _SHELL else None
            return cls("exited", f"exited with code {code}", code=code, signal=name)
        name = _signal_name(-code)
        return cls("killed", f"killed by {name or f'signal {-code}'}", signal=name)

    @classmethod
    def from_shell(cls, code: int) -> Self:
        """Read the exit code of a command that a shell ran: beyond 128 it stands for a signal."""
        return cls.from_returncode(_SHELL - code if _SHELL < code <= _SHELL + 64 else code)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a sentence: that of a run of version 0.1, or of a target that tells nothing else."""
        code = re.search(r"\bexited with code (\d{1,10})\b", text)
        by_signal = re.search(r"\bkilled by (?:(SIG\w+)|signal \d+)", text)
        stage = re.search(r"^the Space .*\(stage (\w+)\)", text)
        job = re.search(r"\bjob \d+ ended as (\w+)", text)
        number = int(code[1]) if code else None
        named = stage or job
        return cls(
            "stage" if stage else "job" if job else "exited" if code else "killed" if by_signal else "other",
            text,
            code=number,
            signal=by_signal[1] if by_signal else _signal_name(number - _SHELL) if number else None,
            out_of_memory="out of memory" in text,
            stage=named[1] if named else None,
        )

    @property
    def was_killed(self) -> bool:
        """Whether SIGKILL ended it: sent from outside, or by the kernel for lack of memory."""
        return self.signal == "SIGKILL"

    def of(self, subject: str) -> Self:
        """Return the same, told of something that has a name: `of("replica 127.0.0.2:8000")`."""
        return replace(self, text=f"{subject} {self.text}")

    def __str__(self) -> str:
        return self.text


def _signal_name(number: int) -> str | None:
    try:
        return signal.Signals(number).name
    except ValueError:
        return None
