"""Every picture, in one style; matplotlib is imported when a figure is made."""

from mixsolve.plots.bars import AccuracyBar, Bar, accuracy_bars, risk_bars
from mixsolve.plots.leads import Lead, lead_bars
from mixsolve.plots.mixture import Example, Variant, mixture_picture
from mixsolve.plots.style import check_ending, png, require_matplotlib, save

__all__ = [
    "AccuracyBar",
    "Bar",
    "Example",
    "Lead",
    "Variant",
    "accuracy_bars",
    "check_ending",
    "lead_bars",
    "mixture_picture",
    "png",
    "require_matplotlib",
    "risk_bars",
    "save",
]
