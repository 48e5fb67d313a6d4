"""How xdist shares out real tests: those of a file stay together, so that what they share is started once."""

from __future__ import annotations

from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

ONE_BY_ONE = {
    *("test_check_command.py", "test_main_job.py", "test_spaces.py"),
    *("test_suite_defects.py", "test_suite_on_openenv.py"),
}
"""Files whose tests share nothing that takes long to start: each test goes to whichever process is free."""


class ByFile(LoadScopeScheduling):
    """As `--dist loadfile`, but for the files above."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return nodeid if Path(path).name in ONE_BY_ONE else path
