"""Result files as the older script of these experiments wrote them."""

import csv
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

_COLUMNS = (
    "mode,url,num_requests,batch_size,wait_seconds,repetition,timestamp,hardware,successful,failed,error_rate,"
    "total_wall_time,connect_p50,connect_p95,connect_p99,reset_p50,reset_p95,reset_p99,step_p50,step_p95,step_p99,"
    "total_min,total_max,total_avg,total_p50,total_p90,total_p95,total_p99,requests_per_second,effective_concurrency,"
    "unique_pids,unique_sessions,unique_hosts"
)
COLUMNS = _COLUMNS.split(",")
START = datetime(2026, 1, 14, 9, 30, 0, 250000)


def session(number: int, *, batch: int, wait: float = 1.0, mode: str = "ws", **changed: Any) -> dict[str, Any]:
    """Return a session that went well."""
    connect = 0.0 if mode == "http" else 0.005 + number / 1e4
    row: dict[str, Any] = {
        "request_id": number,
        "mode": mode,
        "timestamp": f"{(START + timedelta(milliseconds=number)).isoformat()}Z",
        "wait_requested": wait,
        "batch_size": batch,
        "hardware": "cpu-basic",
        "connect_latency": connect,
        "reset_latency": 0.002,
        "step_latency": wait + 0.001,
        "total_latency": connect + 0.002 + wait + 0.001,
        "waited_seconds": wait,
        "pid": 100 + number % 2,
        "session_hash": f"{number:012x}",
        "host_url": "node1:8000",
        "success": True,
        "error_type": None,
        "error_message": None,
    }
    return {**row, **changed}


def refused(number: int, *, batch: int, wait: float = 1.0) -> dict[str, Any]:
    """Return a session that could not connect."""
    nothing = dict.fromkeys(("connect_latency", "reset_latency", "step_latency", "waited_seconds"), 0.0)
    empty = dict.fromkeys(("pid", "session_hash", "host_url"))
    failure = {"success": False, "error_type": "ConnectionRefusedError", "error_message": "[Errno 111] no"}
    return session(number, batch=batch, wait=wait, **nothing, **empty, **failure, total_latency=0.25)


def repetition(batch: int, *, good: int | None = None, wait: float = 1.0, mode: str = "ws") -> list[dict[str, Any]]:
    """Return the sessions of one repetition, the first `good` of which went well."""
    good = batch if good is None else good
    return [
        session(number, batch=batch, wait=wait, mode=mode) if number < good else refused(number, batch=batch, wait=wait)
        for number in range(batch)
    ]


def line(rows: Sequence[dict[str, Any]], number: int, **changed: Any) -> dict[str, Any]:
    """Return the line of `summary.csv` for the sessions of a repetition."""
    good = sum(row["success"] for row in rows)
    first = rows[0]
    fields = {
        "mode": first["mode"],
        "url": "http://127.0.0.1:8000",
        "num_requests": len(rows),
        "batch_size": len(rows),
        "wait_seconds": first["wait_requested"],
        "repetition": number,
        "timestamp": first["timestamp"],
        "hardware": first["hardware"] or "",
        "successful": good,
        "failed": len(rows) - good,
        "error_rate": 1 - good / len(rows),
        "total_wall_time": 1.5,
        "requests_per_second": good / 1.5,
        "effective_concurrency": len(rows) * first["wait_requested"] / 1.5,
    }
    return {**dict.fromkeys(COLUMNS, ""), **fields, **changed}


def write(folder: Path, rows: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]] | None = None) -> Path:
    """Write the files into a folder and return it; without lines there is no summary."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if lines is not None:
        with (folder / "summary.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(lines)
    return folder


def read(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Return what both files of a folder hold."""
    rows = [json.loads(text) for text in (folder / "raw.jsonl").read_text().splitlines()]
    with (folder / "summary.csv").open(newline="") as file:
        return rows, list(csv.DictReader(file))
