"""Every picture, in one style; matplotlib is imported when a figure is made."""

from mixsolve.plots.risk import (
    AccuracyBar,
    Bar,
    Example,
    Variant,
    accuracy_bars,
    check_ending,
    mixture_picture,
    require_matplotlib,
    risk_bars,
    save,
)

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
