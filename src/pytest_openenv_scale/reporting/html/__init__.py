"""`report.html`: one file that needs nothing else, the answer on top, everything a server said escaped."""

from __future__ import annotations

from .page import report_html

__all__ = ["report_html"]
