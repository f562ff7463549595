"""`mixsolve audit` from saved models to the verdict, on a small scale, and all it refuses."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import mixsolve
from mixsolve.base.errors import MissingDependencyError
from mixsolve.commands.main import main
from mixsolve_torch import digits_cnn, evaluate, load_data, load_model
from mixsolve_torch.commands import audit
from mixsolve_torch.commands.audit import FILES, short_names
from mixsolve_torch.core.mixture import Mixture

pytest.importorskip("matplotlib")
# Newer versions of PyTorch deprecate TorchScript, which people have models in.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three small networks, saved in the three forms."""
    folder = tmp_path_factory.mktemp("models")
    script, program, weights = (digits_cnn(seed=k).eval() for k in range(3))
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.jit.save(torch.jit.trace(script, x), folder / "script.pt")
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(program, (x,), dynamic_shapes=({0: batch},))
    torch.export.save(exported, folder / "program.pt2")
    torch.save(weights.state_dict(), folder / "weights.pt")
    return [
        str(folder / "script.pt"),
        str(folder / "program.pt2"),
        f"mixsolve_torch:digits_cnn={folder / 'weights.pt'}",
    ]


def command(models, out, *more, eps="8/255"):
    effort = ["--steps", "3", "--limit", "40", "--eps", eps]
    return ["audit", "--models", *models, "--data", "digits", *effort, "--out", str(out), *more]


@pytest.fixture(scope="module")
def finished(models, tmp_path_factory):
    out = tmp_path_factory.mktemp("audit") / "new" / "folder"
    code = main(command(models, out))
    return code, out


def test_groups_are_those_of_the_labels_or_of_a_file(models, tmp_path, capsys):
    code = main(command(models[:2], tmp_path / "class", "--groups", "class", "--no-held-out"))
    assert code in (0, 1)
    printed = capsys.readouterr().out
    assert "Worst-case accuracy, %, on each group" in printed
    content = json.loads((tmp_path / "class" / "audit.json").read_text())
    assert content["groups"] == "class"
    assert len(content["by_group"]["names"]) == 10
    np.save(tmp_path / "sites.npy", np.repeat(["north", "south"], 25))
    sites = command(models[:2], tmp_path / "sites", "--groups", str(tmp_path / "sites.npy"))
    assert main(sites) in (0, 1)
    content = json.loads((tmp_path / "sites" / "audit.json").read_text())
    assert content["by_group"]["names"] == ["north", "south"]
    assert "group south" in (tmp_path / "sites" / "audit.csv").read_text()
    np.save(tmp_path / "few.npy", np.zeros(7, dtype=int))
    wrong = command(models[:2], tmp_path / "few", "--groups", str(tmp_path / "few.npy"))
    assert main(wrong) == 2
    assert "a label for each of the 40 images" in capsys.readouterr().err


def test_json_is_all_that_is_printed_and_quiet_prints_nothing(models, tmp_path, capsys):
    few = [*models[:1], *models[2:]]
    code = main(command(few, tmp_path / "json", "--no-held-out", "--json"))
    out, err = capsys.readouterr()
    assert code in (0, 1)
    assert err == ""
    assert json.loads(out) == json.loads((tmp_path / "json" / "audit.json").read_text())
    assert main(command(few, tmp_path / "quiet", "--no-held-out", "--quiet")) == code
    assert capsys.readouterr() == ("", "")
    assert main(command(["missing.pt"], tmp_path / "none", "--json")) == 2
    out, err = capsys.readouterr()
    assert err == ""
    assert "missing.pt does not exist" in json.loads(out)["error"]


def test_it_writes_its_files_and_leaves_nothing_else(finished):
    code, out = finished
    assert code == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    assert (out / "audit.png").read_bytes().startswith(b"\x89PNG")


def test_the_figures_are_those_of_evaluate(finished, models):
    _, out = finished
    content = json.loads((out / "audit.json").read_text())
    data = load_data("digits", limit=40)
    mixture = Mixture([load_model(spec) for spec in models])
    report = evaluate(
        mixture,
        data[:2],
        norm="Linf",
        eps=8 / 255,
        steps=3,
        names=["script", "program", "weights"],
    )
    told = json.loads(report.json)
    assert {key: content[key] for key in told} == told
    assert content["models"] == dict(zip(["script", "program", "weights"], models, strict=True))
    assert content["eps"] == 8 / 255
    assert content["seconds"] > 0
    saved = np.load(out / "solution.npz")
    assert saved["risk"] == pytest.approx(report.solution.risk)
    assert mixsolve.solve(report.fitted_losses).risk == pytest.approx(
        float(saved["risk"]), abs=1e-6
    )


def test_the_command_prints_table_and_verdict(models, tmp_path, capsys):
    code = main(command(models[:2], tmp_path, "--attacks", "pgd,uniform"))
    printed = capsys.readouterr()
    assert code == 0
    words = ("script", "program", "uniform mixture", "mean of logits", "that is proven", "is best")
    for word in (*words, "Randomising buys"):
        assert word in printed.out
    assert "radius 8/255 on 20 images" in printed.out
    assert "attacked optimal mixture" in printed.err


def test_weights_may_be_fitted_on_the_images_reported_on(models, tmp_path, capsys):
    more = ["--attacks", "uniform", "--no-held-out"]
    assert main(command(models[:2], tmp_path, *more)) == 0
    assert "on 40 images" in capsys.readouterr().out
    assert not json.loads((tmp_path / "audit.json").read_text())["held_out"]


def test_the_report_is_one_page(models, tmp_path, capsys):
    page = tmp_path / "pages" / "report.html"
    arguments = command(models[:2], tmp_path / "out", "--attacks", "uniform", "--report", str(page))
    assert main(arguments) == 0
    assert f"The page is {page}." in capsys.readouterr().out
    text = page.read_text()
    content = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert text.startswith("<!DOCTYPE html>")
    assert text.count("data:image/png;base64,") == 2
    assert content["best_ensemble"] in text
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]
    elsewhere = command(models[:2], tmp_path / "more", "--attacks", "uniform")
    assert main([*elsewhere, "--report", str(page)]) == 2
    assert f"--report {page} exists: give --overwrite" in capsys.readouterr().err
    assert page.read_text() == text


def test_norms_may_be_spelled_otherwise(models, tmp_path):
    arguments = command(models[:1], tmp_path, "--attacks", "uniform", "--norm", "l_2", eps="1 / 2")
    assert main(arguments) == 0
    content = json.loads((tmp_path / "audit.json").read_text())
    assert (content["norm"], content["eps"]) == ("L2", 0.5)


def test_a_directory_of_class_folders(models, tmp_path):
    image = pytest.importorskip("PIL.Image")
    digits = load_data("digits", limit=40)
    for k, (x, y) in enumerate(zip(*digits[:2], strict=True)):
        file = tmp_path / "tree" / "test" / str(int(y)) / f"{k:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray((x[0] * 255).byte().repeat_interleave(2, 0).numpy()).save(file)
    more = ["--attacks", "uniform", "--data", str(tmp_path / "tree"), "--size", "8"]
    assert main(command(models[:1], tmp_path / "out", *more)) == 0
    content = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert (content["split"], content["size"], content["images"]) == ("test", 8, 40)


def test_adversarial_images_from_a_file(models, tmp_path, capsys):
    images = load_data("digits", limit=40).images
    np.save(tmp_path / "points.npy", (images - 0.1).clamp(min=0).numpy())
    names = f"uniform,{tmp_path / 'points.npy'}"
    out = tmp_path / "out"
    assert main(command(models[:2], out, "--attacks", names, eps="0.1")) == 0
    content = json.loads((out / "audit.json").read_text())
    assert content["attack_names"] == names
    assert "given" in capsys.readouterr().out
    for eps, file, message in (
        ("0.05", "points.npy", "must stay in the ball that it declares"),
        ("0.1", "none.npy", "none.npy cannot be read"),
    ):
        wrong = command(models[:2], out, "--overwrite", "--attacks", str(tmp_path / file), eps=eps)
        assert main(wrong) == 2
        assert message in capsys.readouterr().err


def test_an_interrupted_audit_goes_on(models, tmp_path, monkeypatch):
    def stop(*arguments, **keywords):
        raise KeyboardInterrupt

    arguments = command(models[:2], tmp_path, "--attacks", "pgd")
    monkeypatch.setattr(audit, "_write", stop)
    assert main(arguments) == 130
    (parts,) = tmp_path.iterdir()
    done = {path: path.stat().st_mtime_ns for path in parts.glob("*.npy")}
    assert len(done) >= 4
    monkeypatch.undo()
    seen = {}
    write = audit._write

    def look(*arguments):
        seen.update({path: path.stat().st_mtime_ns for path in parts.glob("*.npy")})
        write(*arguments)

    monkeypatch.setattr(audit, "_write", look)
    assert main(arguments) == 0
    assert seen == done
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("writer", ["write_text", "save_solution"])
def test_one_stopped_among_its_files_is_not_in_its_own_way(writer, models, tmp_path, monkeypatch):
    def stop(*arguments, **keywords):
        raise KeyboardInterrupt

    arguments = command(models[:1], tmp_path, "--attacks", "uniform")
    with monkeypatch.context() as patch:
        patch.setattr(audit, writer, stop)
        assert main(arguments) == 130
    assert main(arguments) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_an_audit_of_other_things_is_not_in_the_way(models, tmp_path, monkeypatch, capsys):
    """The same command, and other data in the file it names, or another model, or another seed."""
    draws = np.random.default_rng(0)
    images = draws.random((2, 12, 8, 8)).astype(np.float32)
    labels = draws.integers(10, size=(2, 12))
    script = tmp_path / "a.pt"
    shutil.copy(models[0], script)
    out = tmp_path / "out"

    def write(which):
        np.savez(tmp_path / "data.npz", images=images[which], labels=labels[which], classes=10)

    def run(*more):
        given = ["--models", str(script), models[1], "--data", str(tmp_path / "data.npz")]
        effort = ["--eps", "0.1", "--steps", "2", "--attacks", "pgd", "--out", str(out), *more]
        return main(["audit", *given, *effort])

    write(0)
    with monkeypatch.context() as patch:
        patch.setattr(audit, "_write", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run() == 130
        assert f"kept in {out}: the same command goes on" in capsys.readouterr().err
        shutil.copy(models[1], script)
        assert run() == 130
        shutil.copy(models[0], script)
        assert run("--seed", "1") == 130
    write(1)
    assert run() == 0
    printed = capsys.readouterr()
    assert "Audits that were not finished keep their work there" in printed.out
    content = json.loads((out / "audit.json").read_text())
    mixture = Mixture([load_model(models[0]), load_model(models[1])])
    data = torch.from_numpy(images[1])[:, None], torch.from_numpy(labels[1])
    report = evaluate(mixture, data, "pgd", norm="Linf", eps=0.1, steps=2, names=["a", "program"])
    told = json.loads(report.json)
    assert {key: content[key] for key in told} == told
    # The one that was interrupted first goes on, and leaves the others to their commands.
    write(0)
    assert len(list(out.glob("evaluation-*"))) == 3
    assert run("--overwrite") == 0
    assert len(list(out.glob("evaluation-*"))) == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--attacks", "typo"], "attacks must be among 'standard', 'pgd', 'apgd-ce', 'apgd-dlr'"),
        (["--attacks", "pgd,"], "got ''"),
        (["--eps", "8"], "write 8/255"),
        (["--eps", "nan"], "--eps must be"),
        (["--steps", "0"], "steps must be"),
        (["--restarts", "0"], "restarts must be"),
        (["--rounds", "0"], "--rounds must be"),
        (["--batch-size", "0"], "--batch-size must be"),
        (["--seed", "-1"], "--seed must be"),
        (["--limit", "0"], "--limit must be"),
        (["--names", "a", "b"], "names must be 1 different names"),
        (["--device", "abacus"], "--device abacus cannot be used"),
        (["--models", "{tmp}/none.pt"], "none.pt does not exist"),
        (["--models", "zoo:make={tmp}/none.pt"], "none.pt does not exist"),
        (["--out", "{tmp}/file"], "is a file"),
        (["--report", "{tmp}/page.pdf"], "--report must end in .html"),
        (["--report", "{tmp}/old.html"], "old.html exists: give --overwrite"),
        (["--report", "{tmp}/sealed/page.html"], "sealed cannot be written to"),
        (["--out", "{tmp}/file/below"], "cannot be written"),
        (["--out", "{tmp}/sealed/below"], "sealed cannot be written to"),
        (["--out", "{tmp}/unplotted"], "matplotlib is missing"),
    ],
)
def test_what_can_be_checked_is_refused_before_anything_is_loaded(
    models, tmp_path, capsys, monkeypatch, more, message
):
    def loaded(*arguments, **options):
        pytest.fail("something was loaded")

    monkeypatch.setattr(audit, "read_data", loaded)
    monkeypatch.setattr(audit, "load_model", loaded)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "old.html").write_text("precious")
    (tmp_path / "sealed").mkdir()
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not str(path).endswith("sealed") and access(path, mode)
    )
    more = [word.replace("{tmp}", str(tmp_path)) for word in more]
    if "unplotted" in more[-1]:

        def missing():
            raise MissingDependencyError("matplotlib is missing")

        monkeypatch.setattr(audit.plots, "require_matplotlib", missing)
    assert main(command(models[:1], tmp_path / "out", *more)) == 2
    assert message in capsys.readouterr().err


def test_an_optimal_mixture_that_does_not_settle_exits_with_one(models, tmp_path, monkeypatch):
    def unsettled(*arguments, **options):
        return replace(evaluate(*arguments, **options), settled=False)

    monkeypatch.setattr(audit, "evaluate", unsettled)
    assert main(command(models[:1], tmp_path, "--attacks", "uniform")) == 1
    assert not json.loads((tmp_path / "audit.json").read_text())["settled"]


def test_files_of_one_s_own_and_warnings_of_attacks(tmp_path, capsys):
    class Rounded(torch.nn.Module):
        def forward(self, x):
            score = 4 * (x.flatten(1).mean(dim=1, keepdim=True) - 0.5)
            return torch.cat([-score, score], dim=1).clamp(-1e-9, 1e-9)

    images = np.random.default_rng(0).random((6, 4, 4)).astype(np.float32)
    labels = (images.mean(axis=(1, 2)) > 0.5).astype(int)
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    traced = torch.jit.trace(Rounded(), torch.from_numpy(images[:, None]))
    torch.jit.save(traced, tmp_path / "a.pt")
    out = tmp_path / "out"
    files = ["--models", str(tmp_path / "a.pt"), "--data", str(tmp_path / "data.npz")]
    options = ["--eps", "0.01", "--steps", "2", "--attacks", "pgd", "--out", str(out)]
    assert main(["audit", *files, *options]) == 0
    printed = capsys.readouterr().out
    assert "nothing to randomise between" in printed
    assert "Warning: models[0] gives a gradient of exactly zero" in printed
    (warning,) = json.loads((out / "audit.json").read_text())["warnings"]
    assert "gradient masking" in warning


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_overwritten_unasked(models, tmp_path, capsys, name):
    (tmp_path / name).write_text("precious")
    assert main(command(models[:1], tmp_path)) == 2
    assert f"already holds {name}: give --overwrite" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "precious"


def test_files_are_overwritten_when_asked(models, tmp_path):
    (tmp_path / "audit.json").write_text("of an earlier run")
    (tmp_path / "notes.txt").write_text("precious")
    assert main(command(models[:1], tmp_path, "--attacks", "uniform", "--overwrite")) == 0
    assert json.loads((tmp_path / "audit.json").read_text())["images"] == 40
    assert (tmp_path / "notes.txt").read_text() == "precious"


def test_models_of_one_name_are_told_apart():
    assert short_names(["a/net.pt", "b/net.pt", "m:f=c/net.pt", "d.pt2"]) == [
        "net",
        "net (2)",
        "net (3)",
        "d",
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--eps", "8"], "in units of bytes write 8/255"),
        (["--eps", "8", "--norm", "inf"], "in units of bytes write 8/255"),
        (["--norm", "L3"], "--norm must be 'Linf', 'L2' or 'L1'; got 'L3'"),
        (["--models", "none.pt"], "the model none.pt does not exist"),
        (["--data", "imagenet"], "data must be 'digits', 'mnist', 'fashion-mnist', 'svhn', 'cifar"),
        (
            ["--data", "mnist"],
            "data_dir (--data-dir, data.dir) must name the directory that holds mnist",
        ),
        (["--size", "8"], "size must be left out with digits"),
        (["--size", "0"], "--size must be an integer >= 1"),
        (["--data", "cifar10"], "data_dir (--data-dir, data.dir) must name the directory"),
        (["--attacks", "deepfool"], "got 'deepfool'"),
        (["--device", "abacus"], "--device abacus cannot be used"),
        (["--limit", "0"], "--limit must be an integer >= 1"),
        (["--batch-size", "0"], "--batch-size must be an integer >= 1"),
        (["--names", "a", "b"], "names must be 1 different names"),
    ],
)
def test_wrong_input_is_one_line(models, tmp_path, capsys, more, message):
    pytest.importorskip("torchvision")
    assert main(command(models[:1], tmp_path / "out", *more)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not list(tmp_path.glob("out/*.json"))


def test_models_that_do_not_fit_the_images_are_named(tmp_path, capsys):
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        coloured = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
        few = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    torch.jit.save(torch.jit.trace(coloured, x), tmp_path / "coloured.pt")
    torch.jit.save(torch.jit.trace(few, x[:, :1]), tmp_path / "few.pt")
    torch.save(few, tmp_path / "pickled.pt")
    for name, message in (
        ("coloured", "coloured.pt cannot classify images of shape (1, 8, 8): RuntimeError"),
        ("few", "few.pt returns 4 logits and the data have 10 classes"),
        ("pickled", "to load one is to run the code it names"),
    ):
        assert main(command([str(tmp_path / f"{name}.pt")], tmp_path / "out")) == 2
        assert message in capsys.readouterr().err


def test_threats_are_audited_together_and_each_alone(models, tmp_path):
    words = [*models[:1], models[2]]
    more = ["--attacks", "pgd", "--threat", "Linf:8/255", "--threat", "rotations:15:3"]
    line = command(words, tmp_path / "out", *more)
    at = line.index("--eps")
    assert main(line[:at] + line[at + 2 :]) == 0
    content = json.loads((tmp_path / "out" / "audit.json").read_text())
    data = load_data("digits", limit=40)
    mixture = Mixture([load_model(spec) for spec in words])
    report = evaluate(
        mixture,
        data[:2],
        "pgd",
        threats=[("Linf", 8 / 255), ("rotations", 15, 3)],
        steps=3,
        names=["script", "weights"],
    )
    told = json.loads(report.json)
    assert {key: content[key] for key in told} == told
    assert content["threats"] == ["Linf 8/255", "rotations 15"]
    head = (tmp_path / "out" / "audit.csv").read_text().partition("\n")[0]
    assert "under Linf 8/255,under Linf 8/255 low" in head


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--threat", "L3:1"], "--threat 'L3:1' is not understood: a set is one of Linf"),
        (["--threat", "Linf"], "--threat 'Linf' is not understood: a ball takes one radius"),
        (["--threat", "Linf:8"], "in units of bytes write 8/255"),
        (["--threat", "rotations:x"], "--threat 'rotations:x' is not understood: degrees"),
        (["--threat", "L2:1", "--threat", "l2:1"], "got 'L2 1' twice"),
        (["--threat", "L2:1", "--eps", "1"], "--eps must be left out with --threat"),
        (["--threat", "L2:1", "--norm", "L2"], "--norm must be left out with --threat"),
        ([], "--eps, the radius of the attacks, or --threat must be given"),
    ],
)
def test_wrong_threats_are_refused_before_anything_is_read(more, message, capsys):
    assert main(["audit", "--models", "none.pt", "--data", "digits", *more]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert message in told


def test_verify_adds_what_no_attack_can_break(models, tmp_path, capsys):
    out = tmp_path / "out"
    page = tmp_path / "page.html"
    more = ["--verify", "--report", str(page), "--attacks", "apgd-ce", "--limit", "8"]
    assert main(command(models[1:], out, *more, eps="0.01")) == 0
    told = capsys.readouterr().out
    assert "verified" in told
    assert "known" in told
    content = json.loads((out / "audit.json").read_text())
    for player in content["players"]:
        assert 0 <= player["verified"]["value"] <= player["worst"]["value"] + 1e-9
    head, *rows = (out / "audit.csv").read_text().splitlines()
    assert head.split(",")[-4:] == ["verified", "verified low", "verified high", "passes"]
    told = [float(row.split(",")[-4]) for row in rows]
    assert told == pytest.approx([player["verified"]["value"] for player in content["players"]])
    assert "not known, %" in page.read_text()


def test_verify_refuses_what_it_cannot_bound_before_the_attacks(models, tmp_path, capsys):
    assert main(command(models, tmp_path / "a", "--verify")) == 2
    assert "models[0]" in capsys.readouterr().err
    assert main(command(models[1:], tmp_path / "b", "--verify", "--norm", "L1", eps="1")) == 2
    assert "verify needs one ball, Linf or L2; got L1" in capsys.readouterr().err
