"""The rule of layers: data flows one way, and no stage imports the one that uses it."""

import ast
from pathlib import Path

import pytest

import pytest_openenv_scale

ROOT = Path(pytest_openenv_scale.__file__).parent
PACKAGE = "pytest_openenv_scale"
FORBIDDEN = {
    "core": (
        "pytest",
        "_pytest",
        *(
            f"{PACKAGE}.{layer}"
            for layer in ("targets", "checks", "reports", "hub", "legacy", "server", "selftest", "plugin")
        ),
    ),
    "checks": (
        "pytest",
        "_pytest",
        *(
            f"{PACKAGE}.{layer}"
            for layer in ("reports", "hub", "legacy", "server", "selftest", "suite", "plugin", "checking")
        ),
    ),
    "selftest": ("pytest", "_pytest", f"{PACKAGE}.targets", f"{PACKAGE}.server", f"{PACKAGE}.plugin"),
    "targets": (
        "pytest",
        "_pytest",
        *(f"{PACKAGE}.{layer}" for layer in ("reports", "plugin", "hub.card", "hub.push", "hub.pull")),
    ),
    "reports": (
        "pytest",
        "_pytest",
        f"{PACKAGE}.checks",
        f"{PACKAGE}.targets",
        f"{PACKAGE}.server",
        f"{PACKAGE}.plugin",
    ),
    "legacy": ("pytest", "_pytest", *(f"{PACKAGE}.{layer}" for layer in ("targets", "reports", "server", "plugin"))),
    "hub": ("pytest", "_pytest", f"{PACKAGE}.targets", f"{PACKAGE}.server", f"{PACKAGE}.plugin"),
    "server": ("pytest", "_pytest", f"{PACKAGE}.reports", f"{PACKAGE}.targets", f"{PACKAGE}.plugin"),
}
STAGES = (
    "grammar",
    "slo",
    "plan",
    "workload",
    "session",
    "load",
    "table",
    "summary",
    "verdict",
    "view",
    "run",
    "sweep",
)


def imports_of(path: Path) -> set[str]:
    """Return the absolute names of everything a file imports, at any depth of its code."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def under(name: str, roots: tuple[str, ...]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


@pytest.mark.parametrize(("layer", "forbidden"), FORBIDDEN.items(), ids=FORBIDDEN)
def test_a_layer_imports_nothing_above_it(layer: str, forbidden: tuple[str, ...]) -> None:
    files = sorted((ROOT / layer).rglob("*.py"))
    assert files
    wrong = {file.name: bad for file in files if (bad := {name for name in imports_of(file) if under(name, forbidden)})}
    assert wrong == {}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_never_imports_a_later_one(stage: str) -> None:
    later = tuple(f"{PACKAGE}.core.{name}" for name in STAGES[STAGES.index(stage) + 1 :])
    seen: set[str] = set()
    waiting = [f"{PACKAGE}.core.{stage}"]
    while waiting:
        name = waiting.pop()
        file = ROOT / "core" / f"{name.rpartition('.')[2]}.py"
        if name in seen or not file.exists():
            continue
        seen.add(name)
        waiting += [found for found in imports_of(file) if found.startswith(f"{PACKAGE}.core.")]
    assert not seen & set(later)
