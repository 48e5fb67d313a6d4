r"""A table as LaTeX, to be read with `\input`: the packages booktabs and graphicx are all it takes, with any engine."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_openenv_scale.core.text import on_one_line
from pytest_openenv_scale.reporting.content.tables import Table

_LONGEST_LINE = 40
"""A column with a longer text is broken into lines."""

_SIGNS = {
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
    **{sign: f"${sign}$" for sign in "<>|"},
    # A row that begins with one of these would be an argument of the end of the row before it.
    **{sign: f"{{{sign}}}" for sign in "[]*"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "≈": r"$\approx$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "±": r"$\pm$",
    "−": "$-$",
    "·": r"$\cdot$",
    "→": r"$\rightarrow$",
    "µ": r"$\mu$",
    "σ": r"$\sigma$",
    "…": r"\ldots{}",
    "–": "--",
    "—": "---",
}
_LIGATURE = re.compile(r"(?<=-)(?=-)|(?<=')(?=')|(?<=,)(?=,)")
"""Between two signs that LaTeX sets as one."""

_PLAIN = re.compile(r"[ -~À-ÏÑ-ÖØ-Ýß-ïñ-öø-ýÿ]")
"""Signs that every engine and encoding has; of others their code is shown."""


def table_latex(table: Table) -> str:
    """Return a table with caption, label and notes, shrunk to the width of the line where it is wider."""
    columns = "".join(_column(table, head, at) for at, head in enumerate(table.heads))
    lines = [
        "% needs: \\usepackage{booktabs,graphicx}",
        "\\begin{table}[htbp]",
        "\\centering",
        f"\\caption{{{escape(table.title)}}}",
        f"\\label{{tab:openenv-{table.key}}}",
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        _row(table.heads),
        "\\midrule",
        *map(_row, table.texts),
        "\\bottomrule",
        "\\end{tabular}}",
    ]
    if table.notes:
        notes = "\\\\\n".join(map(escape, table.notes))
        lines += ["\\par\\smallskip", f"\\parbox{{\\linewidth}}{{\\footnotesize\n{notes}}}"]
    return "\n".join([*lines, "\\end{table}", ""])


def _column(table: Table, head: str, at: int) -> str:
    if head in table.right:
        return "r"
    return "p{6cm}" if max(len(row[at].text) for row in table.rows) > _LONGEST_LINE else "l"


def _row(texts: Sequence[str]) -> str:
    return f"{' & '.join(map(escape, texts))} \\\\"


def escape(text: str) -> str:
    """Return text in which nothing is taken for LaTeX, on one line."""
    return "".join(map(_sign, _LIGATURE.sub("\0", on_one_line(text))))


def _sign(sign: str) -> str:
    if sign == "\0":
        return "{}"
    if sign in _SIGNS:
        return _SIGNS[sign]
    if _PLAIN.match(sign):
        return sign
    code = sign.encode("ascii", "backslashreplace").decode()
    return code.replace("\\", _SIGNS["\\"])
