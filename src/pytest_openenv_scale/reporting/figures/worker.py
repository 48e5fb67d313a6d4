"""The process that draws: figures come in by a pipe, pictures go out by it. Run as a module, by `write.py` only.

Nothing of plotnine, matplotlib or pandas thus reaches the process of a user's tests: no warning, no setting, no figure
that stays open, no memory.
"""

from __future__ import annotations

import gc
import importlib
import io
import sys
import warnings
from multiprocessing.connection import Connection
from typing import Any

from pytest_openenv_scale.config.figures import FigureFiles

from .content import DrawingRequest, FigureContent, Picture

_METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""What a file says of when and with what it was made: nothing."""


def draw(content: FigureContent, files: FigureFiles) -> Picture:
    """Draw one figure; the same content gives the same bytes with the same versions of the libraries."""
    from matplotlib import pyplot

    mpl: Any = importlib.import_module("matplotlib")

    with mpl.rc_context(), warnings.catch_warnings():
        # A curve of one point has no line; any other warning would mean that something is missing in the figure.
        warnings.filterwarnings("ignore", message=".*Each group consist of only one observation")
        # Nothing of a matplotlibrc of this machine is part of a figure.
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "svg.hashsalt": content.key,
                "svg.fonttype": "none",
                # TrueType, as printers of papers ask for.
                "pdf.fonttype": 42,
                "font.family": "DejaVu Sans",
                "path.simplify": False,
            }
        )
        figure: Any = _plot(content).draw()
        try:
            buffers = {name: io.BytesIO() for name in files.formats}
            for name, buffer in buffers.items():
                figure.savefig(buffer, format=name, dpi=files.dpi if name == "png" else 72, metadata=_METADATA[name])
        finally:
            pyplot.close(figure)
    return Picture(content.key, {name: buffer.getvalue() for name, buffer in buffers.items()})


def _plot(content: FigureContent) -> Any:
    from . import bars, lines, over_time, sessions
    from .drawing.bars import draw_bars, draw_heat, draw_latency
    from .drawing.lines import draw_history, draw_nodes, draw_scaling, draw_throughput
    from .drawing.over_time import draw_over_time
    from .drawing.sessions import draw_concurrency, draw_overhead

    makers = {
        "max_batch": draw_bars,
        "batch_per_core": draw_bars,
        bars.HEAT_KEY: draw_heat,
        bars.LATENCY_KEY: draw_latency,
        lines.SCALING_KEY: draw_scaling,
        lines.THROUGHPUT_KEY: draw_throughput,
        lines.NODES_KEY: draw_nodes,
        sessions.OVERHEAD_KEY: draw_overhead,
        sessions.CONCURRENCY_KEY: draw_concurrency,
        over_time.OVER_TIME_KEY: draw_over_time,
        lines.HISTORY_KEY: draw_history,
    }
    return makers[content.key](content)


def main() -> None:
    """Draw what the parent sends; the last message is the pictures, or the text of what went wrong."""
    pipe = Connection(int(sys.argv[1]))
    request: DrawingRequest = pipe.recv()
    # Only to be found: nothing here is a user's, whose folders may hold files of the same names.
    sys.path += [entry for entry in request.path if entry not in sys.path]
    # What is drawn is small; looking for garbage in it takes a tenth of the time.
    gc.disable()
    warnings.simplefilter("ignore")
    try:
        pipe.send([draw(content, request.files) for content in request.contents])
    except Exception as error:
        lines = str(error).strip().splitlines()
        pipe.send(f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300])


if __name__ == "__main__":
    main()
