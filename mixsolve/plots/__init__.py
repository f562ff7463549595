"""Every picture, in one style; matplotlib is imported when a figure is made."""

from mixsolve.plots.bars import AccuracyBar, Bar, accuracy_bars, risk_bars
from mixsolve.plots.mixture import Example, Variant, mixture_picture
from mixsolve.plots.style import check_ending, require_matplotlib, save

__all__ = [
    "AccuracyBar",
    "Bar",
    "Example",
    "Variant",
    "accuracy_bars",
    "check_ending",
    "mixture_picture",
    "require_matplotlib",
    "risk_bars",
    "save",
]
