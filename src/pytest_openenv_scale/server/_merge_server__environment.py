"""The environment itself: an episode that counts its steps and says who answered."""

from __future__ import annotations

import os
import secrets
import uuid

from .validation import encode


class Environment:
    """One session's environment. It holds no thread and no timer: whoever drives it does the waiting."""

    __slots__ = ("_answered_by", "_episode_id", "_session_id", "step_count")

    def __init__(self, host_url: str) -> None:
        # Everything between the wait and the count is the same in every observation: written once.
        self._answered_by = (
            f',"pid":{os.getpid()},"session_hash":"{secrets.token_hex(6)}","host_url":{encode(host_url)},"step_count":'
        )
        self._episode_id: str | None = None
        self._session_id: str | None = None
        self.step_count = 0

    @property
    def session_id(self) -> str:
        """The session's id, by which clients that speak JSON-RPC know it; made when first asked for."""
        if self._session_id is None:
            self._session_id = str(uuid.uuid4())
        return self._session_id

    @property
    def episode_id(self) -> str:
        """The name given at reset, else a random one; made when first asked for, since few ask."""
        if self._episode_id is None:
            self._episode_id = str(uuid.uuid4())
        return self._episode_id

    def reset(self, episode_id: object = None) -> str:
        """Begin a new episode and return its first observation as JSON."""
        self._episode_id = episode_id if isinstance(episode_id, str) else None
        self.step_count = 0
        return self._observation(0.0)

    def stepped(self, waited: float) -> str:
        """Count a step that waited so many seconds and return its observation as JSON."""
        self.step_count += 1
        return self._observation(waited)

    def state(self) -> str:
        """The episode's state as JSON."""
        return f'{{"episode_id":{encode(self.episode_id)},"step_count":{self.step_count}}}'

    def _observation(self, waited: float) -> str:
        return (
            f'{{"observation":{{"metadata":{{}},"waited_seconds":{round(waited, 6)!r}'
            f'{self._answered_by}{self.step_count}}},"reward":null,"done":false}}'
        )
