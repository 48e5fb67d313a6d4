"""The table of command-line options and ini keys, with defaults as text; `values.py` beside it parses them.

Every pytest run pays for this module, so it imports nothing and makes no value that only a measurement needs.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

DEFAULT_RESULTS = ".openenv-results"
"""Where runs go where nobody says otherwise, below pytest's root directory; `results.location` says more."""

RUN_ARGUMENTS = (
    *("--rootdir=.", "-o", "addopts=", "-o", "python_functions=test"),
    *("--pyargs", "pytest_openenv_scale.suite.test_scaling", "-m", "scaling"),
)
"""What `openenv-scale run` calls pytest with, before the options: where one is, whatever addopts there are."""


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

    @property
    def form(self) -> dict[str, Any]:
        """What argparse and pytest are told of the option, besides its name."""
        form: dict[str, Any] = {"dest": self.ini, "default": None, "help": self.full_help}
        if self.kind == "flag":
            return {**form, "action": "store_true"}
        return {**form, "metavar": self.metavar, "action": "append" if self.kind == "repeated" else "store"}


OPTIONS: tuple[Option, ...] = (
    Option(
        "target",
        "SPEC",
        "local",
        "Server to measure: NAME[:ARGUMENT][,key=value...] or a URL, for example local,server=uvicorn",
        "repeated",
    ),
    Option(
        "url",
        "URL",
        None,
        "URL of a server that is already running; commas spread sessions over several URLs, and env:FILE reads "
        "OPENENV_URL from a file",
    ),
    Option(
        "batches",
        "LIST",
        "1,8,32,128",
        "Number of sessions to open at once; a list is measured one after the other, and 8..512 doubles from 8 up"
        " to 512",
    ),
    Option(
        "waits",
        "LIST",
        "0.1,1.0",
        "Seconds that the environment is asked to spend in each step (simulated step time); each is measured with"
        " every batch",
    ),
    Option("reps", "N", "1", "Number of times to measure each batch"),
    Option(
        "again",
        "N",
        "3",
        "Number of times to repeat a measurement that only this machine left in doubt, once it is calm; 0: never",
    ),
    Option("modes", "LIST", "ws", "Protocols to measure: ws, http or ws,http"),
    Option(
        "steps",
        "N",
        "1",
        "Number of steps in each session; until_done=N ends a session with its episode, or after N steps",
    ),
    Option(
        "think",
        "TIME",
        None,
        "Think time, from a reply to the next step of the session: 2s, uniform=1s..3s, exponential=2s (mean), "
        "lognormal=2s,0.8 (median, σ of the logarithm) or @FILE with one time per line (write "
        "--openenv-think=@FILE)",
    ),
    Option(
        "arrival",
        "HOW",
        "hold",
        "How the sessions of a batch start: hold (all are open before any steps), burst (all at once), rate=R (R "
        "per second, at random times) or steady=TIME (until TIME is up, as many slots play session after session)",
    ),
    Option(
        "ramp",
        "TIME",
        None,
        "Time in which the slots of a steady state start one by one; sessions that begin in it, or arrive in it "
        "at a rate, are not judged",
    ),
    Option("for", "TIME", None, "Time in which sessions arrive at rate=R: R × TIME of them, instead of batches"),
    Option(
        "timeout",
        "TIME",
        "120s",
        "Time limit for each phase of a session (connect, reset, step); a step gets it on top of its wait",
    ),
    Option(
        "action",
        "JSON",
        None,
        'Action to send: JSON in which "$wait" stands for the wait, @FILE.jsonl (write '
        "--openenv-action=@FILE.jsonl) or module:function, called with (session, step[, observation]); else it is"
        " made from the server's /schema",
    ),
    Option(
        "reset",
        "JSON",
        None,
        'JSON object to send with every reset, "$seed" in it standing for --openenv-seed plus the session\'s '
        "number; @FILE.jsonl has one per session, module:function is called with the session's number",
    ),
    Option(
        "until-done",
        None,
        None,
        "End a session when its episode is done, instead of resetting it and going on; the same as "
        "--openenv-steps until_done",
        "flag",
    ),
    Option(
        "slo",
        "LIMIT",
        None,
        "Limit to meet, which replaces the same limit of a mark, for example max_batch>=512 or total_p99<=2s",
        "repeated",
    ),
    Option(
        "inconclusive",
        "WHAT",
        "fail",
        "Result of a test whose limits could not be measured: fail, or warn to pass it with a warning",
    ),
    Option(
        "full-grid",
        None,
        None,
        "Measure every batch; without this, two failing batches in a row end the list",
        "flag",
    ),
    Option(
        "search",
        "RANGE",
        "off",
        "Range in which to search for the largest batch that meets the limits, instead of a list of batches: auto"
        " (1 to 16,384, or to 1,024 on servers elsewhere), LOW..HIGH or off",
    ),
    Option(
        "precision",
        "SHARE",
        "5%",
        "Distance at which a search ends, between the largest batch that passes and the smallest that fails; 0 is"
        " exact",
    ),
    Option(
        "budget",
        "TIME",
        None,
        "Time limit for all measuring, without the start of servers; what is not measured by then is inconclusive",
    ),
    Option(
        "max-sessions",
        "N",
        "10000",
        "Number of sessions that a run may open in total on other machines than this one",
    ),
    Option(
        "lock-timeout",
        "TIME",
        "1h",
        "Time limit for waiting until no other run measures on this machine, which would distort both; 0: no wait",
    ),
    Option("plan", None, None, "Print what would be measured, with its sessions and minutes, and exit", "flag"),
    Option(
        "http-connections",
        "HOW",
        "session",
        "How sessions connect in http mode: session (one connection each, kept), request (a new one for every "
        "request) or shared (an idle one of a pool)",
    ),
    Option(
        "played",
        "WHAT",
        "required",
        "Whether a session played alone must get more than errors before anything is measured: required or any",
    ),
    Option(
        "ping",
        "TIME",
        "20s",
        "Time between pings on a WebSocket session, as OpenEnv's own client sends them, so that no proxy takes it"
        " for idle; or off",
    ),
    Option(
        "no-samples",
        None,
        None,
        "Leave actions and answers out of the results, which otherwise keep the first of each, cut short",
        "flag",
    ),
    Option("processes", "N", "auto", "Number of processes that generate the load"),
    Option("seed", "N", "0", "Seed of everything that is random"),
    Option(
        "header",
        "HEADER",
        None,
        "Header to send with every request: 'Name: value' or 'Name: env:VARIABLE' (the only form in ini); never "
        "stored or shown",
        "repeated",
    ),
    Option(
        "insecure",
        None,
        None,
        "Accept any TLS certificate, for example one that the server signed itself; every report says so",
        "flag",
    ),
    Option(
        "proxy",
        "URL",
        None,
        "HTTP proxy (CONNECT) to servers on other machines: http://[user:password@]host:port or env:VARIABLE (in "
        "ini the only form with a password); the password is never stored or shown",
    ),
    Option("note", "TEXT", None, "Text to keep with the run"),
    Option(
        "results",
        "DIR",
        DEFAULT_RESULTS,
        "Folder for the results; the word none writes nothing",
    ),
    Option("json", "FILE", None, "File to write the JSON report to, besides the one in the results"),
    Option(
        "outputs",
        "FILE",
        None,
        "File to append openenv_verdict, openenv_max_batch and openenv_run to, as NAME=value for later jobs of a CI",
    ),
    Option("report", "LIST", "md", "Reports to write: any of md, html, figures, latex, csv and log, or none"),
    Option("figure-formats", "LIST", "svg,png", "Formats to write figures in: any of svg, png and pdf"),
    Option("dpi", "N", "130", "Dots per inch of figures in PNG; 300 is for print"),
    Option(
        "soak",
        "TIME",
        "20s",
        "Duration of the endurance test of the suite; 0 skips it",
    ),
    Option(
        "baseline",
        "REF",
        None,
        "Stored run to compare with: a path, a run id or its beginning, latest, latest~1, a git commit, branch or tag",
    ),
    Option(
        "fail-on",
        "EXPR",
        None,
        "Change against the baseline that fails a test, for example max_batch:-10% or total_p99:+200ms",
        "repeated",
    ),
)
