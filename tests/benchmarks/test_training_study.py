"""The study of training: its figures from losses, and a whole recipe on a few images."""

import numpy as np
import pytest
import torch

from benchmarks.cells import keep, kept
from benchmarks.training_study import compare, report
from benchmarks.training_study.measure import MEASURES, Cell, measured
from benchmarks.training_study.settings import RECIPES, SETTINGS, configuration, recipes
from mixsolve_torch import PGD, Mixture, digits_cnn
from mixsolve_torch.data.arrays import digits

_ONE, _LONG, _TWO = "one", "one, 2x as long", "two together"


def _cell(errors, weights=(1.0,), chosen=0.5, passes=1.0, ends=(2, 3, 4)):
    """Return a cell of losses [image][candidate][network]."""
    losses = np.array(errors, dtype=np.uint8)
    return Cell(
        losses,
        np.array(ends),
        np.arange(len(losses)) % 2,
        np.array(weights),
        chosen,
        passes,
        np.zeros(2),
    )


def _single(right, chosen=0.5, passes=1.0):
    """Return a cell of one network that is right on some images under every attack."""
    return _cell([[[0], *[[int(not own)]] * 3] for own in right], chosen=chosen, passes=passes)


# Two networks, clean right; PGD fools the first one, APGD the second, `worst` both at one point on
# the second image only.
_PAIR = _cell(
    [
        [[0, 0], [1, 0], [0, 1], [0, 1]],
        [[0, 0], [1, 0], [0, 1], [1, 1]],
    ],
    weights=(0.75, 0.25),
    passes=2.0,
)


def test_each_measure_counts_its_own_candidates_and_the_worst_all():
    assert _PAIR.accuracy("PGD-20").tolist() == [0.25, 0.25]
    assert _PAIR.accuracy("APGD").tolist() == [0.75, 0.75]
    assert _PAIR.accuracy("worst").tolist() == [0.25, 0.0]
    assert _PAIR.clean.tolist() == [1.0, 1.0]
    assert _PAIR.members.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_a_single_network_is_chosen_on_held_out_images_and_by_cost():
    cells = {
        _ONE: _single([1, 1, 0, 0], chosen=0.6),
        _LONG: _single([1, 1, 1, 1], chosen=0.5, passes=2.0),
        _TWO: _PAIR,
    }
    assert compare.rival(cells, _TWO) == _ONE
    cells[_LONG] = _single([1, 1, 1, 1], chosen=0.7, passes=2.09)
    assert compare.rival(cells, _TWO) == _LONG
    assert compare.rival(cells, _ONE) is None
    cells["one, 3x as long"] = _single([1, 1, 1, 1], chosen=0.9, passes=3.0)
    assert compare.rival(cells, _TWO) == _LONG


def test_gains_are_paired_and_have_errors_over_images_and_seeds():
    rng = np.random.default_rng(0)
    by_seed, differences = {}, []
    for seed in range(3):
        first, second = rng.integers(2, size=(2, 50))
        pair = _cell([[[0, 0], *[[1 - own, 1 - own]] * 3] for own in second], weights=(0.5, 0.5))
        by_seed[seed] = {_ONE: _single(first), _TWO: pair}
        differences.append(100.0 * (second - first))
    own, rivals = compare.gain(by_seed, _TWO, "worst")
    means = np.mean(differences, axis=1)
    assert rivals == (_ONE,)
    assert own.value == pytest.approx(means.mean())
    assert own.seed_error == pytest.approx(means.std(ddof=1) / np.sqrt(3))
    variances = np.var(differences, axis=1, ddof=1) / 50
    assert own.image_error == pytest.approx(np.sqrt(variances.sum()) / 3)
    assert np.isnan(compare.gain({0: by_seed[0]}, _TWO, "worst")[0].seed_error)


def test_a_gain_is_that_of_the_networks_alone_and_the_margin():
    cells = {0: {_ONE: _single([1, 0]), _TWO: _PAIR}}
    networks, margin = compare.parts(cells, _TWO)
    assert networks + margin == pytest.approx(compare.gain(cells, _TWO, "worst")[0].value)
    assert (networks, margin) == (pytest.approx(-50.0), pytest.approx(12.5))


@pytest.mark.parametrize(
    ("value", "image_error", "seed_error", "sign"),
    [(2.1, 1.0, np.nan, 1), (1.9, 1.0, np.nan, 0), (2.1, 1.0, 1.1, 0), (-5.0, 1.0, 2.0, -1)],
)
def test_a_gain_counts_beyond_two_of_the_larger_error(value, image_error, seed_error, sign):
    assert compare.Gain(value, image_error, seed_error).sign == sign


def test_a_verdict_of_one_half_is_checked_on_the_other():
    # On the first 20 images the pair is right and the single network wrong; then the reverse.
    single = _single([0] * 20 + [1] * 20)
    pair = _cell(
        [[[0, 0], *[[int(i >= 20)] * 2] * 3] for i in range(40)],
        weights=(0.5, 0.5),
    )
    own = compare.checked({_ONE: single, _TWO: pair}, _TWO)
    assert own.mixture
    assert own.gain == -100
    assert own.wrong
    other = compare.checked({_ONE: _single([1] * 40), _TWO: pair}, _TWO)
    assert not other.mixture
    assert not other.wrong


def test_a_network_of_less_than_half_the_accuracy_is_told():
    alive = _cell([[[0, 0]] * 4] * 4, weights=(0.5, 0.5))
    dead = _cell([[[0, 0], *[[0, 1]] * 3]] * 4, weights=(1.0, 0.0))
    assert not compare.forgotten({_ONE: _single([1] * 4), _TWO: alive}, _TWO)
    assert compare.forgotten({_ONE: _single([1] * 4), _TWO: dead}, _TWO)


def test_cells_come_back_as_they_were_kept(tmp_path):
    keep(tmp_path / "a" / "seed-0.npz", _PAIR)
    found = kept(tmp_path / "a" / "seed-0.npz", Cell)
    for name, value in vars(_PAIR).items():
        np.testing.assert_array_equal(getattr(found, name), value)
    assert kept(tmp_path / "other.npz", Cell) is None


def test_a_mixture_is_measured_by_all_three():
    mixture = Mixture([digits_cnn(seed=0), digits_cnn(seed=1)]).eval()
    x, y = digits().test.images[:2], digits().test.labels[:2]
    suite = {
        name: PGD("Linf", 0.1, steps=steps, restarts=steps)
        for steps, name in enumerate(MEASURES, 1)
    }
    found = measured(mixture, x, y, suite, seed=0)
    cell = Cell(**found, chosen=0.5, passes=1.0, seconds=np.zeros(2))
    assert cell.ends[-1] == cell.losses.shape[1]
    assert (cell.accuracy("worst") <= cell.accuracy("PGD-20")).all()
    assert (cell.accuracy("worst") <= cell.accuracy("APGD")).all()


def test_a_network_of_weight_0_is_attacked_as_the_others_are():
    networks = [digits_cnn(seed=0), digits_cnn(seed=1)]
    x, y = digits().test.images[:20], digits().test.labels[:20]
    with torch.no_grad():
        y = networks[1].eval()(x).argmax(dim=1)  # it is right on all of them
    suite = {name: PGD("Linf", 0.5, steps=10) for name in MEASURES}
    found = [
        Cell(
            **measured(Mixture(networks, weights).eval(), x, y, suite, seed=0),
            chosen=0.5,
            passes=1.0,
            seconds=np.zeros(2),
        )
        for weights in ([1.0, 0.0], [0.0, 1.0])
    ]
    assert found[0].members[:, 1].mean() < 0.5
    assert found[0].members[:, 1].mean() == pytest.approx(found[1].members[:, 1].mean(), abs=0.1)


@pytest.mark.parametrize("title", SETTINGS)
def test_every_recipe_is_a_configuration(title, tmp_path):
    for recipe in map(RECIPES.get, recipes(title)):
        config = configuration(SETTINGS[title], recipe, 3, tmp_path, images=2000, epochs=2)
        assert config.model.count == recipe.networks
        assert config.optimizer.epochs == 2 * recipe.epochs
        assert config.loss.name == SETTINGS[title].loss


def test_the_page_holds_figures_and_what_was_not_measured(tmp_path):
    title = next(iter(SETTINGS))
    pair = _cell(np.tile(_PAIR.losses, (2, 1, 1)), weights=(0.75, 0.25))
    cells = {title: {0: {_ONE: _single([1] * 4), _TWO: pair}}}
    report.write(tmp_path, cells, count=4, images=100, epochs=1)
    page = (tmp_path / "training-study.md").read_text()
    assert "| two together | 0.0 | 1 | 100.0 | 25.0 | 75.0 | 12.5 |" in page
    assert "-87.5" in page
    # Both networks can be fooled everywhere: all that the mixture has is margin.
    assert "Its networks have -100.0 points on their own, and the margin is 12.5." in page
    assert "PGD-20: 0 ahead, 1 behind; APGD: 0 ahead, 1 behind; worst: 0 ahead, 1 behind" in page
    assert "none is ahead: one network of equal cost is the better" in page
    assert "PGD-20 misses 12.5 points of what is found on a mixture, and 0.0 on a single" in page
    assert "## Not measured" in page
