"""What holds for all tests of the core, from before the first of their modules is imported.

How long an example of hypothesis takes on a shared machine is no property of what is tested, and every `report.json`
that a test makes is held to its schema.
"""

from __future__ import annotations

from functools import cache

from hypothesis import settings

import report_schema


@cache
def apply() -> None:
    report_schema.check_every_report()
    settings.register_profile("patient", deadline=None)
    settings.load_profile("patient")
