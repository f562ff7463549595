"""The style of every picture: colours, figures and files.

matplotlib is imported when a figure is made, not before. The colours are Okabe and Ito's, which
people with a colour vision deficiency can tell apart; what a colour means is also written.

References
----------
Okabe, Ito. Color Universal Design. 2008.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mixsolve.base.errors import MissingDependencyError, MixsolveError
from mixsolve.base.files import written_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, INK, PALE = "#0072B2", "#E69F00", "#009E73", "#333333", "#BBBBBB"
# For things of one kind beside each other; marks distinguish those of one colour.
PALETTE = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#D55E00")
_DPI = 150


def require_matplotlib() -> None:
    """Raise `MissingDependencyError` if matplotlib is missing; called before long work."""
    new_figure(1.0, 1.0)


def check_ending(path: Path, called: str) -> None:
    """Refuse, before long work, a picture's file whose ending is not a format.

    `called` is the user's name for it, for the message.

    Raises
    ------
    MixsolveError
        matplotlib does not write this format.
    MissingDependencyError
        matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.backend_bases import FigureCanvasBase

    if path.suffix[1:].lower() not in FigureCanvasBase.filetypes:
        raise MixsolveError(
            f"{called} must end in .png, .svg or .pdf, which is the format: {path.name!r} could "
            "not be written"
        )


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure aside and rename it, so that it is never half written.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The picture.
    path : str or path
        The file; its ending is the format. A file that exists is replaced.

    Raises
    ------
    MixsolveError
        The picture cannot be written there.
    """
    path = Path(path)
    check_ending(path, f"the picture {path}")
    try:
        with written_aside(path) as aside:
            figure.savefig(aside, dpi=_DPI)
    except (OSError, ValueError) as error:
        raise MixsolveError(f"the picture {path} could not be written: {error}") from error


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file, to put into a page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, sizes in inches."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "pictures need matplotlib, which is not installed; "
            "install it with: pip install 'mixsolve[plot]'"
        ) from error
    # Made without pyplot: no window, no global state, nothing to close.
    return Figure(figsize=(width, height), layout="constrained")


def plain(axes: Axes) -> None:
    """Leave out the frame of horizontal bars, and the ticks of their names."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
