"""`mixsolve certify` on saved networks: what it prints is what the functions return."""

import json

import numpy as np
import pytest
import torch

import mixsolve_torch as mt
from mixsolve.commands.main import main
from mixsolve_torch.data.arrays import digits

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two traced networks, images in a file, and masks of two bands."""
    folder = tmp_path_factory.mktemp("certify")
    x, y = (own[:80] for own in digits().test)
    masks = mt.views.bands(SHAPE, 2, gap=2)
    train = tuple(own[:300] for own in digits().train)
    views = mt.fit_views(lambda s: mt.digits_cnn(seed=s, width=4), train, masks, epochs=8)
    files = []
    for k, view in enumerate(views):
        files.append(str(folder / f"view-{k}.pt"))
        torch.jit.save(torch.jit.trace(view.model.eval(), x[:2]), files[-1])
    np.save(folder / "masks.npy", masks.numpy())
    np.savez(folder / "images.npz", images=x.numpy(), labels=y.numpy())
    return folder, files, views, (x, y)


def command(saved, *more):
    folder, files, _, _ = saved
    return ["certify", "--models", *files, "--data", str(folder / "images.npz"), *more]


def test_the_command_says_what_the_functions_return(saved, capsys):
    folder, _, views, data = saved
    options = ["--masks", str(folder / "masks.npy"), "--threat", "patch:3", "--seed", "4"]
    out = folder / "certificate.json"
    assert main(command(saved, *options, "--json", "--out", str(out))) == 0
    printed = json.loads(capsys.readouterr().out)
    assert json.loads(out.read_text()) == printed
    expected = mt.reach_losses(views, data, mt.Patch(3)).certify(seed=4)
    assert printed["certified"] == pytest.approx(vars(expected.certified))
    assert printed["weights"] == pytest.approx(expected.weights.tolist())
    assert printed["sets"] == 36
    assert sorted(printed["patterns"]) == [[0, 1], [1, 0]]
    assert 0 < printed["certified"]["value"] < printed["clean"]["value"]
    assert main(command(saved, *options, "--out", str(out))) == 2
    assert "--replace" in capsys.readouterr().err
    assert main(command(saved, *options)) == 0
    text = capsys.readouterr().out
    assert "Certified:" in text
    assert "held-out" in text


def test_without_masks_nothing_is_certified(saved, capsys):
    assert main(command(saved, "--threat", "patch:1", "--weights", "0.5", "0.5")) == 0
    text = capsys.readouterr().out
    assert "Certified: 0.00 %" in text
    assert "--masks" in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--threat", "Linf:0.1"], "--threat must be patch:SIZE"),
        (["--threat", "patch:9"], "larger than the image"),
        (["--threat", "patch:2", "--at-most", "0"], "--at-most must be"),
        (["--threat", "patch:2", "--weights", "1"], "weights must be 2 probabilities"),
        (["--threat", "patch:2", "--masks", "none.npy"], "--masks none.npy cannot be read"),
        (["--threat", "patch:2", "--level", "1"], "--level must be"),
        (["--threat", "patch:2", "--device", "nowhere"], "--device nowhere cannot be used"),
    ],
)
def test_wrong_input_ends_with_a_line_that_says_so(saved, capsys, more, message):
    assert main(command(saved, *more)) == 2
    assert message in capsys.readouterr().err


def test_masks_of_another_number_are_refused(saved, capsys):
    folder, _, _, _ = saved
    np.save(folder / "one.npy", np.ones((1, 8, 8), dtype=bool))
    assert main(command(saved, "--threat", "patch:2", "--masks", str(folder / "one.npy"))) == 2
    assert "one mask a model" in capsys.readouterr().err
