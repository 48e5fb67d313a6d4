"""How hypothesis tries examples: how long one takes on a shared machine is no property of what is tested."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
