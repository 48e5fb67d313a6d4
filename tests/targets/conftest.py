"""What real runs leave is held to what it promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from report_schema import check_reports_below


@pytest.fixture(autouse=True)
def _reports_fit_their_schema(tmp_path: Path) -> Iterator[None]:
    yield
    check_reports_below(tmp_path)
