"""How many lines of code does the package have, folder by folder? Blank lines, comments and docstrings do not count.

A docstring is one where Python or a documentation tool takes it for one: at the start of a module, class or function,
or below the attribute it describes.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from harness.problem import Problem
from harness.program import options, print_table, start, write_json

PACKAGE = Path(__file__).resolve().parents[1] / "src/pytest_openenv_scale"
_NO_CODE = frozenset(
    {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
)
_OWNERS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def main() -> None:
    """Count the files below a folder and print a line for each of its folders."""
    parser = options(__doc__ or "")
    parser.add_argument("root", nargs="?", type=Path, default=PACKAGE, help="folder of the code (default: the package)")
    parser.add_argument("--files", action="store_true", help="a line for each file, the largest first")
    chosen = parser.parse_args()
    counts = {path.relative_to(chosen.root): code_lines(path) for path in sorted(chosen.root.rglob("*.py"))}
    if not counts:
        raise Problem(f"there is no Python file in {chosen.root}; name the folder of the code")
    per_line: Counter[str] = Counter()
    for path, lines in counts.items():
        per_line[str(path if chosen.files else path.parent)] += lines
    rows = per_line.most_common() if chosen.files else sorted(per_line.items())
    table = [*rows, ("all", sum(counts.values()))]
    heads = ("file" if chosen.files else "folder", "lines of code", "")
    print_table(heads, [(name, f"{lines:,}", "") for name, lines in table])
    write_json(chosen.json, {str(path): lines for path, lines in counts.items()})


def code_lines(path: Path) -> int:
    """Return how many lines of a file hold code."""
    text = path.read_text(encoding="utf-8")
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines.difference(*docstrings(ast.parse(text))))


def docstrings(tree: ast.Module) -> Iterator[range]:
    """Yield the lines of each docstring."""
    for owner in ast.walk(tree):
        if not isinstance(owner, _OWNERS):
            continue
        # Below an attribute of a module or a class too; inside a function only the first is one.
        statements = owner.body if isinstance(owner, (ast.Module, ast.ClassDef)) else owner.body[:1]
        for statement in statements:
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)


if __name__ == "__main__":
    start(main)
