"""Every picture, in one style; matplotlib is imported when a figure is made.

Functions that draw return a `matplotlib.figure.Figure`, for `save`. They and `save` raise
`MissingDependencyError` where matplotlib is not installed.
"""

from mixsolve.plots.bars import AccuracyBar, accuracy_bars
from mixsolve.plots.leads import Lead, lead_bars
from mixsolve.plots.mixture import Example, Variant, mixture_picture
from mixsolve.plots.radii import risk_by_radius
from mixsolve.plots.solution import game_picture, solution_picture
from mixsolve.plots.style import PALETTE, check_ending, png, require_matplotlib, save
from mixsolve.plots.two_classes import two_classes

__all__ = [
    "PALETTE",
    "AccuracyBar",
    "Example",
    "Lead",
    "Variant",
    "accuracy_bars",
    "check_ending",
    "game_picture",
    "lead_bars",
    "mixture_picture",
    "png",
    "require_matplotlib",
    "risk_by_radius",
    "save",
    "solution_picture",
    "two_classes",
]
