"""Jobs of GitHub Actions and GitLab CI on this machine: their shell steps are run, actions of others are imitated.

A stored cache and uploaded artifacts are folders. Expressions are those that the project's own files use.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
BRANCH = "main"
TIMEOUT_S = 300.0

_BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TOKEN = re.compile(r"'(?:[^']|'')*'|[A-Za-z_][\w-]*(?:\.[\w-]+)*(?:\(\))?|==|!=|&&|\|\||!|[()]")
_OPERATORS = {"&&": "and", "||": "or", "!": "not"}
_STATUSES: Mapping[str, Callable[[bool], bool]] = {
    "success()": lambda ok: ok,
    "failure()": lambda ok: not ok,
    "always()": lambda _: True,
    "cancelled()": lambda _: False,
}


def documented(folder: Path = ROOT) -> list[str]:
    """The YAML of docs/ci.md, block by block."""
    return _BLOCK.findall((folder / "docs" / "ci.md").read_text())


def loaded(text: str) -> dict[str, Any]:
    """A YAML document in which `on` is a word, as both services read it."""
    return yaml.load(text, yaml.BaseLoader)


@dataclass
class Job:
    """What a job left: whether it passed, what it printed, its outputs, its summary and what it uploaded."""

    passed: bool = True
    log: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    uploaded: Path = Path()


def evaluate(expression: str, contexts: Mapping[str, Any], *, ok: bool) -> Any:
    """The value of an expression: names, texts in single quotes, comparisons, and, or, not, and the status."""
    words: list[str] = []
    for token in _TOKEN.findall(expression):
        if token.startswith("'"):
            words.append(repr(token[1:-1].replace("''", "'")))
        elif token.endswith("()"):
            words.append(repr(_STATUSES[token](ok)))
        elif token[0].isalpha():
            words.append(repr(_look_up(token, contexts)))
        else:
            words.append(_OPERATORS.get(token, token))
    return eval(" ".join(words), {"__builtins__": {}})


def _look_up(name: str, contexts: Mapping[str, Any]) -> Any:
    value: Any = contexts
    for key in name.split("."):
        value = value.get(key, "") if isinstance(value, Mapping) else ""
    return value


def filled_in(text: str, contexts: Mapping[str, Any]) -> str:
    """A text with the values of its expressions."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda match: str(evaluate(match[1], contexts, ok=True)), text)


class GitHub:
    """Runs jobs of one repository; `environ` is that of every step."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self._environ = dict(environ)
        self._jobs = 0

    def run(self, job: Mapping[str, Any], workspace: Path, ref_name: str, **environ: str) -> Job:
        """Run one job in a checkout."""
        self._jobs += 1
        done = Job(uploaded=self.folder / f"artifacts-{self._jobs}")
        event = {"repository": {"default_branch": BRANCH}}
        name = "push" if ref_name == BRANCH else "pull_request"
        github = {"event_name": name, "ref_name": ref_name, "event": event, "run_id": f"{self._jobs}"}
        contexts: dict[str, Any] = {"github": {**github, "run_attempt": "1"}, "runner": {"os": "Linux"}, "steps": {}}
        steps = _Steps(self.folder, workspace, {**self._environ, **environ}, done)
        done.passed = steps.run(job["steps"], contexts)
        done.outputs = {name: filled_in(value, contexts) for name, value in job.get("outputs", {}).items()}
        return done


class _Steps:
    """The steps of one job, and of the actions that it uses."""

    def __init__(self, folder: Path, workspace: Path, environ: dict[str, str], done: Job) -> None:
        self._folder = folder
        self._workspace = workspace
        self._environ = {**environ, "GITHUB_WORKSPACE": str(workspace)}
        self._done = done

    def run(self, steps: list[dict[str, Any]], contexts: dict[str, Any], action: Path | None = None) -> bool:
        ok = True
        for step in steps:
            if not _is_due(step, contexts, ok=ok):
                continue
            if "uses" in step:
                passed, outputs = self._use(step, contexts)
            else:
                passed, outputs = self._run_script(step, contexts, action)
            contexts["steps"][step.get("id", "")] = {"outputs": outputs}
            ok = ok and passed
        return ok

    def _run_script(
        self, step: Mapping[str, Any], contexts: Mapping[str, Any], action: Path | None
    ) -> tuple[bool, dict[str, str]]:
        files = {name: self._folder / name for name in ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.write_text("")
        script = self._folder / "step.sh"
        script.write_text(step["run"])
        # As GitHub runs it: without `shell`, and with `shell: bash`.
        options = ["--noprofile", "--norc", "-eo", "pipefail"] if step.get("shell") == "bash" else ["-e"]
        done = subprocess.run(
            ["bash", *options, str(script)],
            cwd=self._workspace / filled_in(step.get("working-directory", ""), contexts),
            env={
                **self._environ,
                **{name: str(file) for name, file in files.items()},
                **({"GITHUB_ACTION_PATH": str(action)} if action else {}),
                **{name: filled_in(value, contexts) for name, value in step.get("env", {}).items()},
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        self._done.log += done.stdout
        self._done.summary += files["GITHUB_STEP_SUMMARY"].read_text()
        self._environ |= _read_values(files["GITHUB_ENV"])
        return done.returncode == 0, _read_values(files["GITHUB_OUTPUT"])

    def _use(self, step: Mapping[str, Any], contexts: dict[str, Any]) -> tuple[bool, dict[str, str]]:
        action, _, _ = step["uses"].partition("@")
        given = {name: filled_in(value, contexts) for name, value in step.get("with", {}).items()}
        if action == "OWNER/pytest-openenv-scale":
            return self._run_action(ROOT, given, contexts)
        if action == "actions/cache/restore":
            self._restore(given)
        elif action == "actions/cache/save":
            shutil.copytree(self._workspace / given["path"], self._folder / "cache" / given["key"])
        elif action == "actions/upload-artifact":
            self._upload(given)
        else:
            # The checkout and its Python are there.
            assert action in ("actions/checkout", "actions/setup-python"), action
        return True, {}

    def _run_action(
        self, folder: Path, given: Mapping[str, str], contexts: Mapping[str, Any]
    ) -> tuple[bool, dict[str, str]]:
        action = loaded((folder / "action.yml").read_text())
        assert given.keys() <= action["inputs"].keys()
        inputs = {name: given.get(name, entry["default"]) for name, entry in action["inputs"].items()}
        inner = {**contexts, "inputs": inputs, "steps": {}}
        passed = self.run(action["runs"]["steps"], inner, folder)
        return passed, {name: filled_in(entry["value"], inner) for name, entry in action["outputs"].items()}

    def _restore(self, given: Mapping[str, str]) -> None:
        stored = sorted((self._folder / "cache").glob("*"), key=lambda path: path.stat().st_ctime_ns, reverse=True)
        wanted = [given["key"], *given["restore-keys"].split()]
        for entry in (entry for key in wanted for entry in stored if entry.name.startswith(key)):
            shutil.copytree(entry, self._workspace / given["path"])
            return

    def _upload(self, given: Mapping[str, str]) -> None:
        """Keep a folder; what begins with a dot, or lies in such a folder, is left out unless it is asked for."""
        hidden = given.get("include-hidden-files") == "true"
        for path in (self._workspace / given["path"]).rglob("*"):
            parts = path.relative_to(self._workspace)
            if path.is_file() and (hidden or not any(part.startswith(".") for part in parts.parts)):
                (self._done.uploaded / parts).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, self._done.uploaded / parts)


def _is_due(step: Mapping[str, Any], contexts: Mapping[str, Any], *, ok: bool) -> bool:
    condition = re.sub(r"^\$\{\{|\}\}$", "", step.get("if", "success()").strip())
    if not any(status in condition for status in _STATUSES):
        condition = f"success() && ({condition})"
    return bool(evaluate(condition, contexts, ok=ok))


def _read_values(file: Path) -> dict[str, str]:
    """The lines NAME=value of a file, the last one where a name is repeated."""
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


class GitLab:
    """Runs jobs of one project; a cache is shared by all of them."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self._environ = dict(environ)
        self._jobs = 0

    def run(self, job: Mapping[str, Any], workspace: Path, ref_name: str, **environ: str) -> Job:
        """Run one job in a checkout."""
        self._jobs += 1
        done = Job(uploaded=self.folder / f"artifacts-{self._jobs}")
        predefined = {"CI_DEFAULT_BRANCH": BRANCH, "CI_PIPELINE_SOURCE": "merge_request_event"}
        if ref_name == BRANCH:
            predefined |= {"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BRANCH": ref_name}
        rule = next(rule for rule in job["rules"] if _holds(rule["if"], predefined))
        variables = {**predefined, **job["variables"], **rule.get("variables", {})}
        cache, policy = job["cache"], _expanded(job["cache"]["policy"], variables)
        stored = self.folder / "cache" / cache["key"]
        if "pull" in policy and stored.exists():
            shutil.copytree(stored, workspace, dirs_exist_ok=True)
        shell = subprocess.run(
            ["sh", "-e", "-c", "\n".join(job["script"])],
            cwd=workspace,
            env={**self._environ, **environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        done.log, done.passed = shell.stdout, shell.returncode == 0
        if "push" in policy and done.passed:
            shutil.rmtree(stored, ignore_errors=True)
            _keep(workspace, cache["paths"], stored)
        artifacts = job["artifacts"]
        assert artifacts["when"] == "always"
        _keep(workspace, [*artifacts["paths"], *artifacts["reports"].values()], done.uploaded)
        done.outputs = _read_values(done.uploaded / artifacts["reports"]["dotenv"])
        return done


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda match: variables.get(match[1], ""), text)


def _holds(rule: str, variables: Mapping[str, str]) -> bool:
    left, right = (_expanded(side, variables).strip().strip('"') for side in rule.split("=="))
    return left == right


def _keep(workspace: Path, paths: list[str], folder: Path) -> None:
    """Copy files and folders to the same place below another folder."""
    for path in paths:
        copy = shutil.copytree if (workspace / path).is_dir() else shutil.copy
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        copy(workspace / path, folder / path)
