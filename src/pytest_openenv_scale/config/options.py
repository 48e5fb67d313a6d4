"""The table of command-line options and ini keys, with defaults as text; `values.py` beside it parses them.

Every pytest run pays for this module, so it imports nothing and makes no value that only a measurement needs.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

DEFAULT_RESULTS = "openenv-results"
"""Where runs go where nobody says otherwise, below pytest's root directory."""


class Option(NamedTuple):
    """One row of the table: `--openenv-NAME` on the command line and `openenv_NAME` in ini.

    `default` is written as a person would; None means there is none. `kind` says whether it is written
    once, repeatedly, or as a flag without a value. A named tuple takes a fifth of the time of a frozen dataclass
    to define.
    """

    name: str
    metavar: str | None
    default: str | None
    help: str
    kind: Literal["once", "repeated", "flag"] = "once"

    @property
    def flag(self) -> str:
        """The option as it is written on a command line."""
        return f"--openenv-{self.name}"

    @property
    def ini(self) -> str:
        """The key of the ini twin, which is also the option's destination."""
        return f"openenv_{self.name.replace('-', '_')}"

    @property
    def full_help(self) -> str:
        """The sentence `pytest --help` shows: the help and the default."""
        repeatable = "repeatable; " if self.kind == "repeated" else ""
        default = "off" if self.kind == "flag" else self.default or "none"
        return f"{self.help} ({repeatable}default: {default}).".replace("%", "%%")


OPTIONS: tuple[Option, ...] = (
    Option(
        "target",
        "SPEC",
        "local",
        "Measure this server, NAME[:ARGUMENT][,key=value...] or a URL, for example local,server=uvicorn",
        "repeated",
    ),
    Option(
        "url",
        "URL",
        None,
        "Measure a server that runs already; sessions are spread over URLs joined by commas, and env:FILE "
        "reads OPENENV_URL from a file",
    ),
    Option(
        "batches",
        "LIST",
        "1,8,32,128",
        "Ask for so many sessions at once; 8..512 doubles from 8 up to 512",
    ),
    Option(
        "waits",
        "LIST",
        "0.1,1.0",
        "Ask the environment to spend so many seconds in each step",
    ),
    Option("reps", "N", "1", "Measure each batch so many times"),
    Option(
        "again",
        "N",
        "3",
        "Measure a repetition again that only this machine left in doubt, up to N times, once it is calm; 0: never",
    ),
    Option("modes", "LIST", "ws", "Speak these protocols: ws, http or ws,http"),
    Option(
        "steps",
        "N",
        "1",
        "Take so many steps in each session; until_done=N ends it with its episode, or after N steps",
    ),
    Option(
        "think",
        "TIME",
        None,
        "Let a session think for so long between a reply and its next step: 2s, uniform=1s..3s, exponential=2s (mean), "
        "lognormal=2s,0.8 (median, σ of the logarithm) or @FILE with one time per line (write --openenv-think=@FILE)",
    ),
    Option(
        "arrival",
        "HOW",
        "hold",
        "Start a batch so: hold (all sessions are up before any steps), burst (all at once), rate=R "
        "(R sessions per second at random times) or steady=TIME (as many slots play session after session for so long)",
    ),
    Option(
        "ramp",
        "TIME",
        None,
        "Begin a steady state slot by slot over so long; what begins in it, or arrives in it at a rate, is not judged",
    ),
    Option("for", "TIME", None, "Let sessions arrive at rate=R for so long: R × TIME of them, instead of batches"),
    Option(
        "timeout",
        "TIME",
        "120s",
        "Give each phase of a session so long; a step gets it on top of its wait",
    ),
    Option(
        "action",
        "JSON",
        None,
        'Send this action: JSON in which "$wait" stands for the wait, @FILE.jsonl (write --openenv-action=@FILE.jsonl) '
        "or module:function, called with (session, step[, observation]); without it the server's /schema decides",
    ),
    Option(
        "reset",
        "JSON",
        None,
        'Send this JSON object with every reset; "$seed" in it stands for --openenv-seed plus the session\'s number; '
        "@FILE.jsonl has one per session, module:function is called with the session's number",
    ),
    Option(
        "until-done",
        None,
        None,
        "End a session when its episode is done instead of resetting it and going on, as --openenv-steps until_done",
        "flag",
    ),
    Option(
        "slo",
        "LIMIT",
        None,
        "Set a limit or override that of a mark, for example max_batch>=512 or total_p99<=2s",
        "repeated",
    ),
    Option(
        "inconclusive",
        "WHAT",
        "fail",
        "Let a test whose limits could not be measured fail, or pass with a warning: fail or warn",
    ),
    Option(
        "full-grid",
        None,
        None,
        "Measure every batch instead of stopping a curve after two failing batches in a row",
        "flag",
    ),
    Option(
        "search",
        "RANGE",
        "off",
        "Search the max batch instead of measuring a grid: auto (from 1 to 16,384, of servers elsewhere to 1,024), "
        "LOW..HIGH or off",
    ),
    Option(
        "precision",
        "SHARE",
        "5%",
        "Let a search end where the largest batch that passes and the smallest that fails are so near; 0 is exact",
    ),
    Option(
        "budget",
        "TIME",
        None,
        "Measure for so long at most, start-up of servers not counted; what is left is inconclusive",
    ),
    Option(
        "max-sessions",
        "N",
        "10000",
        "Open so many sessions in a run at most on hosts other than this machine",
    ),
    Option("plan", None, None, "Print what would be measured, with its sessions and minutes, and end", "flag"),
    Option(
        "http-connections",
        "HOW",
        "session",
        "Connect in http mode so: session (each keeps one over its requests), request (a fresh one for every request) "
        "or shared (idle ones are taken from a pool)",
    ),
    Option(
        "played",
        "WHAT",
        "required",
        "Measure only where a session played alone got more than errors (required), or in any case (any)",
    ),
    Option(
        "ping",
        "TIME",
        "20s",
        "Ping a WebSocket session so often, as the stock client does, so that no proxy takes it for idle; or off",
    ),
    Option(
        "no-samples",
        None,
        None,
        "Keep no action and no answer in the results (otherwise the first of each, cut short)",
        "flag",
    ),
    Option("processes", "N", "auto", "Generate load with so many processes"),
    Option("seed", "N", "0", "Seed everything random with this number"),
    Option(
        "header",
        "HEADER",
        None,
        "Send 'Name: value' or 'Name: env:VARIABLE' (the only form in ini) with every request; never stored or shown",
        "repeated",
    ),
    Option(
        "insecure",
        None,
        None,
        "Do not check TLS certificates, as of a server with one of its own; every report says so",
        "flag",
    ),
    Option(
        "proxy",
        "URL",
        None,
        "Reach servers that run elsewhere by this HTTP proxy (CONNECT), http://[user:password@]host:port or "
        "env:VARIABLE (in ini the only form with a password); the password is never stored or shown",
    ),
    Option("note", "TEXT", None, "Keep this text with the run"),
    Option(
        "results",
        "DIR",
        DEFAULT_RESULTS,
        "Write runs into this directory; the word none writes nothing",
    ),
    Option("json", "FILE", None, "Write the JSON report to this file as well"),
    Option("report", "LIST", "md", "Write these reports of the run: md, html, figures, log; or none"),
    Option(
        "soak",
        "TIME",
        "20s",
        "Let the endurance test of the suite last so long; 0 skips it",
    ),
    Option(
        "baseline",
        "REF",
        None,
        "Compare with this stored run: a path, a run id, latest, or a git commit, branch or tag",
    ),
    Option(
        "fail-on",
        "EXPR",
        None,
        "Fail a test whose figure got worse than the baseline's by more than this, for example max_batch:-10% or "
        "total_p99:+200ms",
        "repeated",
    ),
)
