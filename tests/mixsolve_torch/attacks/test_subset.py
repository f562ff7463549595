import pytest
import torch
from attack_cases import NORMS, curved, two_class

from mixsolve.base.errors import GradientWarning, MixsolveError
from mixsolve_torch import Mixture, expected_loss
from mixsolve_torch.attacks.arc import ARC
from mixsolve_torch.attacks.members import Members
from mixsolve_torch.attacks.objective import Objective
from mixsolve_torch.attacks.subset import Subset
from mixsolve_torch.models.classifiers import frozen


@pytest.mark.parametrize("norm", NORMS)
def test_never_worse_than_arc_from_the_same_starts_on_any_image(norm, generator):
    mixture = Mixture([curved(k) for k in range(4)], weights=[0.1, 0.4, 0.3, 0.2])
    x = torch.rand(80, 1, 3, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (80,), generator=generator)
    eps = 0.1 if norm == "Linf" else 0.3
    arc = ARC(norm, eps, steps=2, restarts=2)(mixture, x, y)[0]
    subset = Subset(norm, eps, steps=4, arc_steps=2, restarts=2)(mixture, x, y)[0]
    arc_risk, risk = expected_loss(mixture, arc, y), expected_loss(mixture, subset, y)
    assert (risk >= arc_risk).all()
    assert risk.mean() > arc_risk.mean()


@pytest.mark.parametrize("norm", NORMS)
def test_several_light_classifiers_outweigh_the_heaviest(norm):
    # Beyond 0.6 the heaviest errs; below 0.4 the two others, which weigh more together.
    up = torch.tensor([1.0, 0.0])
    heavy = two_class(-up, 0.6)
    light = [two_class(up, -0.4), two_class(up, -0.41)]
    mixture = Mixture([heavy, *light], weights=[0.4, 0.3, 0.3])
    x, y = torch.full((5, 1, 1, 2), 0.5), torch.ones(5, dtype=torch.int64)
    attacked = Subset(norm, 0.15, steps=2, arc_steps=0)(mixture, x, y)[0]
    torch.testing.assert_close(expected_loss(mixture, attacked, y), torch.full((5,), 0.6).double())


def test_the_set_of_the_best_point_is_the_first_to_grow():
    up = torch.tensor([1.0, 0.0])
    models = [two_class(-up, 0.6), two_class(up, -0.4), two_class(up, -0.38)]
    mixture = Mixture(models, weights=[0.4, 0.3, 0.3])
    x, y = torch.full((1, 1, 1, 2), 0.5), torch.ones(1, dtype=torch.int64)
    start = torch.tensor([0.39, 0.5]).reshape(x.shape)
    attack = Subset("L2", 0.15, steps=1, arc_steps=0, orders=1)
    with frozen(mixture):
        visited = list(attack.visit(Objective(Members(mixture, y)), start, x, y))
    errors = [score.errors.item() for _, score in visited]
    assert errors == pytest.approx([0.3, 0.6])


@pytest.mark.parametrize("norm", NORMS)
def test_what_the_model_calls_out_of_reach_is_gone_for_all_the_same(norm):
    class Bent(torch.nn.Module):
        """Errs on class 1 where s + 10 s^2 >= 0.4, s the move along the first pixel."""

        def forward(self, x):
            move = x[:, 0, 0, 0] - 0.5
            gap = move + 10 * move**2 - 0.4
            return torch.stack([gap, torch.zeros_like(gap)], dim=1)

    x, y = torch.full((1, 1, 1, 2), 0.5), torch.ones(1, dtype=torch.int64)
    # The slope at the image reaches 0.4 at a distance of 0.4; the classifier errs at 0.16.
    attack = Subset(norm, 0.18, steps=2, arc_steps=0, random_start=False)
    attacked = attack(Mixture([Bent()]), x, y)[0]
    assert expected_loss(Mixture([Bent()]), attacked, y).item() == 1


def test_arc_takes_as_many_steps_as_the_climb_by_default():
    assert Subset("L2", 0.1, steps=7).visits() == 15
    assert Subset("L2", 0.1, steps=7, arc_steps=2).visits() == 10


def test_the_climb_yields_as_many_points_as_it_says(generator):
    mixture = Mixture([curved(k) for k in range(2)])
    x = torch.rand(3, 1, 3, 3, generator=generator, dtype=torch.float64)
    y = torch.tensor([0, 1, 2])
    for arc_steps, steps in ((0, 3), (2, 1)):
        attack = Subset("L2", 0.2, steps=steps, arc_steps=arc_steps)
        with frozen(mixture):
            visited = list(attack.visit(Objective(Members(mixture, y)), x, x, y))
        assert len(visited) == attack.visits() == 1 + steps + arc_steps
        assert torch.equal(visited[0][0], x)
        for point, score in visited:
            torch.testing.assert_close(score.errors, expected_loss(mixture, point, y))


def test_passes_do_not_change_the_result(generator):
    mixture = Mixture([curved(k) for k in range(3)])
    x = torch.rand(11, 1, 3, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (11,), generator=generator)
    options = {"steps": 3, "arc_steps": 1, "restarts": 2}
    whole = Subset("L2", 0.3, **options)(mixture, x, y)
    parts = Subset("L2", 0.3, images_per_pass=3, **options)(mixture, x, y)
    torch.testing.assert_close(whole, parts)


@pytest.mark.parametrize("norm", NORMS)
def test_constant_classifiers_are_said_and_stop_nothing(norm):
    x, y = torch.full((3, 1, 2, 2), 0.5), torch.ones(3, dtype=torch.int64)
    right, wrong = two_class(torch.zeros(4), 1.0), two_class(torch.zeros(4), -1.0)
    mixture = Mixture([right, wrong, two_class(torch.ones(4), -1.9)], weights=[0.2, 0.3, 0.5])
    with pytest.warns(GradientWarning, match=r"models\[0\]"):
        attacked = Subset(norm, 0.2, steps=2, arc_steps=0)(mixture, x, y)[0]
    torch.testing.assert_close(expected_loss(mixture, attacked, y), torch.full((3,), 0.8).double())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"arc_steps": -1}, "arc_steps must be an integer >= 0"),
        ({"orders": 0}, "orders must be an integer >= 1"),
        ({"rivals": 0}, "rivals must be an integer >= 1"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(MixsolveError, match=words):
        Subset("L2", 0.5, **options)
