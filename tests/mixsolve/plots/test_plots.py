"""Pictures: what is drawn is what was given, wrong input is refused, files are whole or absent."""

import sys

import numpy as np
import pytest

from mixsolve import plots
from mixsolve.base.errors import MissingDependencyError, MixsolveError

BARS = [plots.AccuracyBar("alone", 0.6), plots.AccuracyBar("uniform", 0.5, kind="uniform")]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_accuracies_are_drawn_with_intervals_marks_and_a_reference():
    attacks = {"after A": 0.7, "after B": 0.5}
    bars = [
        plots.AccuracyBar("alone", 0.5, (0.4, 0.62), 0.9, attacks),
        plots.AccuracyBar("given", 0.25, clean=0.8, attacks=attacks, kind="given"),
    ]
    figure = plots.accuracy_bars(bars, reference=("alone", 0.5), level=0.9)
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([50, 25])
    assert texts(axes) == ["50.0 %  [40.0, 62.0]", "25.0 %"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["alone", "given"]
    assert "90 % intervals" in axes.get_xlabel()
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["clean images", "after A", "after B", "worst case of alone"]
    marks = {line.get_label(): line.get_xdata() for line in axes.lines}
    assert list(marks["clean images"]) == pytest.approx([90, 80])
    assert list(marks["after B"]) == pytest.approx([50, 50])


def test_accuracies_refuse_what_cannot_be_drawn():
    with pytest.raises(MixsolveError, match="at least one AccuracyBar"):
        plots.accuracy_bars([])
    with pytest.raises(MixsolveError, match="kind of bar 'x' must be one of 'single'"):
        plots.accuracy_bars([plots.AccuracyBar("x", 0.5, kind="vote")])


def test_a_risk_by_radius_stays_until_the_next_jump():
    (axes,) = plots.risk_by_radius(np.array([0.0, 0.5]), np.array([0.1, 0.4]), norm="L1").axes
    (curve,) = axes.lines
    assert [list(part) for part in curve.get_data()] == [[0, 0.5, 0.525], [0.1, 0.4, 0.4]]
    (axes,) = plots.risk_by_radius(np.zeros(1), np.zeros(1), norm="L1").axes  # nothing was fooled
    assert axes.get_xlim()[1] > 0
    with pytest.raises(MixsolveError, match="at least one radius"):
        plots.risk_by_radius(np.zeros(0), np.zeros(0), norm="L1")


def test_bars_of_no_accuracy_can_be_drawn(tmp_path):
    plots.save(plots.accuracy_bars([plots.AccuracyBar("fooled", 0.0)]), tmp_path / "bars.png")


def test_a_mixture_shows_weights_and_examples():
    image = np.zeros((4, 4))
    variants = [plots.Variant(image, 0.75, "fools 1"), plots.Variant(image, 0.25)]
    examples = [plots.Example(image, "clean", variants), plots.Example(image, "calm")]
    figure = plots.mixture_picture(["a", "b"], [0.25, 0.75], examples)
    weights, *grid = figure.axes
    assert texts(weights) == ["25.0 %", "75.0 %"]
    titles = [axes.get_title() for axes in grid]
    assert titles == ["clean", "played 75 %\nfools 1", "played 25 %", "calm", "", ""]
    assert len(plots.mixture_picture(["a", "b"], [0.25, 0.75]).axes) == 1


def test_every_classifier_needs_a_name():
    with pytest.raises(MixsolveError, match=r"weights must have shape \(1,\).*got \(2,\)"):
        plots.mixture_picture(["a"], [0.5, 0.5])


def test_saving_leaves_a_whole_file_or_none(tmp_path):
    figure = plots.accuracy_bars(BARS)
    plots.save(figure, tmp_path / "bars.png")
    assert [path.name for path in tmp_path.iterdir()] == ["bars.png"]
    for wrong in (tmp_path / "missing" / "bars.png", tmp_path / "bars.unknown"):
        with pytest.raises(MixsolveError, match="could not be written"):
            plots.save(figure, wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["bars.png"]


def test_without_matplotlib_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mixsolve\[plot\]'"):
        plots.require_matplotlib()
