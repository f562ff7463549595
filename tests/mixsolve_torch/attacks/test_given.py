"""Ready-made adversarial images find their originals, whatever part of the data is attacked."""

import numpy as np
import pytest
import torch

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch import (
    PGD,
    Given,
    Mixture,
    build_losses,
    evaluate,
    grow,
    resolve_attacks,
    solve_game,
)

SET = {"norm": "Linf", "eps": 0.2}


@pytest.fixture
def mixture(linear):
    return Mixture([linear(seed) for seed in range(3)], [0.5, 0.3, 0.2])


@pytest.fixture
def data(generator):
    x = torch.rand(23, 1, 3, 3, generator=generator)
    return x, torch.arange(23) % 4


@pytest.fixture
def points(data, generator):
    """Two points for each image, each image's own."""
    x, _ = data
    return torch.stack(
        [(x + 0.4 * torch.rand(x.shape, generator=generator) - 0.2).clamp(0, 1) for _ in range(2)]
    )


def risk(mixture, candidates, labels):
    """The risk against the worst of the candidates (m, N, C, H, W), computed anew."""
    wrong = torch.stack(
        [
            torch.stack([model(points).argmax(dim=1) != labels for model in mixture.models])
            for points in candidates
        ]
    )
    return float((mixture.weights @ wrong.double()).amax(dim=0).mean())


def test_points_are_scored_by_the_expected_loss(mixture, data, points):
    losses = build_losses(mixture, data, Given(points, **SET), keep_inputs=True, batch_size=5)
    assert losses.candidate_names == ("clean", "given Linf 0.2 #1", "given Linf 0.2 #2")
    assert torch.equal(losses.inputs[:, 1:], points.transpose(0, 1))
    wanted = risk(mixture, [data[0], *points], data[1])
    assert losses.adversarial_risk(mixture.weights) == pytest.approx(wanted, abs=1e-12)


def test_points_come_in_the_order_of_a_loader(mixture, data, points):
    x, y = data
    loader = [(x[:9], y[:9]), (x[9:10], y[9:10]), (x[10:], y[10:])]
    losses = build_losses(mixture, loader, Given(points[0], **SET), keep_inputs=True)
    assert losses.candidate_names[1:] == ("given Linf 0.2",)
    assert torch.equal(losses.inputs[:, 1], points[0])


@pytest.mark.parametrize("held_out", [False, True])
def test_an_evaluation_finds_the_points_of_every_image(mixture, data, points, held_out):
    report = evaluate(
        mixture, data, Given(points, **SET), held_out=held_out, resamples=20, batch_size=4
    )
    part = report.images
    assert len(part) == (len(data[0]) // 2 if held_out else len(data[0]))
    candidates = torch.stack([data[0], *points])[:, part]
    given = next(player for player in report.players if player.kind == "given")
    wanted = 1 - risk(mixture, candidates, data[1][part])
    assert given.worst.value == pytest.approx(wanted, abs=1e-9)


def test_a_game_and_a_growth_take_points(mixture, data, points):
    game = solve_game(mixture, data, [Given(points, **SET), PGD(*SET.values(), steps=2)], tol=0.1)
    assert game.risk >= build_losses(mixture, data, Given(points, **SET)).adversarial_risk(
        game.weights
    )
    grown = grow(mixture, data, Given(points, **SET), epochs=1, tol=0.5)
    assert len(grown.history) == 1
    x, y = data
    own = Given(points, images=x, **SET)
    grow(mixture, (x[8:], y[8:]), own, held_out=(x[:8], y[:8]), epochs=1, tol=0.5)
    with pytest.raises(MixsolveError, match="none of the images that there are points for"):
        grow(
            mixture,
            (x[8:], y[8:]),
            Given(points[:, 8:], **SET),
            held_out=(x[:8], y[:8]),
            epochs=1,
            tol=0.5,
        )


def test_images_of_ones_own_put_the_order_aside(mixture, data, points, generator):
    x, y = data
    order = torch.randperm(len(x), generator=generator)[:11]
    own = Given(points, images=x, **SET)
    losses = build_losses(mixture, (x[order], y[order]), own, keep_inputs=True, batch_size=3)
    assert torch.equal(losses.inputs[:, 1:], points[:, order].transpose(0, 1))
    assert torch.equal(own(mixture, x[order], y[order]), points[:, order])


def test_equal_images_keep_their_own_points(mixture, data):
    x, y = data
    twins = x[[0, 1, 0, 0]]
    points = torch.stack([twins[0], twins[1], twins[2] * 0.9, twins[3] * 0.95])
    losses = build_losses(mixture, (twins, y[[0, 1, 0, 0]]), Given(points, **SET), keep_inputs=True)
    assert torch.equal(losses.inputs[:, 1], points)


@pytest.mark.parametrize("kind", ["tensor", "array", "bytes", "npy", "npz", "double"])
def test_kinds_of_points(kind, mixture, data, points, tmp_path):
    x, y = data
    given = {"tensor": points, "array": points.numpy(), "double": points.double().numpy()}
    if kind == "bytes":
        given["bytes"] = (points * 255).round().to(torch.uint8)
    if kind == "npy":
        given["npy"] = tmp_path / "points.npy"
        np.save(given["npy"], points.numpy())
    if kind == "npz":
        given["npz"] = str(tmp_path / "found.npz")
        np.savez(given["npz"], points=points.numpy(), labels=y.numpy())
    attack = Given(given[kind], norm="Linf", eps=0.21)
    found = build_losses(mixture, data, attack, keep_inputs=True).inputs[:, 1:]
    assert torch.allclose(found, points.transpose(0, 1), atol=0.5 / 255 if kind == "bytes" else 0)
    assert torch.equal(attack(mixture, x, y), found.transpose(0, 1))


def test_a_file_by_name(mixture, data, points, tmp_path):
    path = tmp_path / "points.npy"
    np.save(path, points.numpy())
    assert [type(each) for each in resolve_attacks(f"pgd, {path}", **SET)] == [PGD, Given]
    with pytest.raises(MixsolveError, match="needs norm and eps"):
        resolve_attacks(str(path))
    game = solve_game(mixture, data, str(path), tol=0.1, **SET)
    assert game.risk > 0


def test_a_point_outside_the_set_is_refused(mixture, data, points):
    far = points.clone()
    far[1, 17] = (data[0][17] - 0.5).abs()
    with pytest.raises(MixsolveError, match=r"'given Linf 0.2 #2' of image 2 of the batch is Linf"):
        build_losses(mixture, data, Given(far, **SET), batch_size=5)
    with pytest.raises(MixsolveError, match="must stay in the ball that it declares"):
        build_losses(mixture, data, Given(points.flip(1), **SET))


def test_wrong_points_are_refused(mixture, data, points, tmp_path):
    x, y = data
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    (tmp_path / "no.npy").write_text("text")
    for bad, error, message in (
        (points[0, 0], MixsolveError, r"must have shape \(N, C, H, W\).*got \(1, 3, 3\)"),
        (points[:0], MixsolveError, "must have shape"),
        (points.bool(), MixsolveTypeError, "floating in .* got torch.bool"),
        (points.numpy().astype(int), MixsolveTypeError, "got int64"),
        (points.tolist(), MixsolveTypeError, "points must be a tensor, an array or a file"),
        (tmp_path / "two.npz", MixsolveError, "must hold one array, or one called 'points'"),
        (tmp_path / "no.npy", MixsolveError, "cannot be read"),
        (tmp_path / "missing.npy", MixsolveError, "cannot be read"),
        (tmp_path / "points.txt", MixsolveError, r"must be a .npy or a .npz file"),
    ):
        with pytest.raises(error, match=message):
            Given(bad, **SET)
    with pytest.raises(MixsolveError, match="images must be the 23 that"):
        Given(points, images=x[:4], **SET)
    for given, message in (
        (points[:, :5], "there are 5 of them and at least 23 images"),
        (points[..., :2], r"the shape of the images, \(1, 3, 3\); got \(1, 3, 2\)"),
    ):
        with pytest.raises(MixsolveError, match=message):
            build_losses(mixture, data, Given(given, **SET))
    with pytest.raises(MixsolveError, match="none of the images that there are points for"):
        build_losses(mixture, (1 - x, y), Given(points, images=x, **SET))
    with pytest.raises(MixsolveError, match="no word on which 3 of them"):
        Given(points, **SET)(mixture, x[:3], y[:3])


def test_interrupted_work_tells_points_apart(mixture, data, points, tmp_path):
    out = tmp_path / "losses.npy"
    build_losses(mixture, data, Given(points, **SET), out=out)
    build_losses(mixture, data, Given(points.clone(), **SET), out=out)
    with pytest.raises(MixsolveError, match="begun with other settings"):
        build_losses(mixture, data, Given(points.flip(0), **SET), out=out)
