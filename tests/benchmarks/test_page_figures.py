"""The figures of README.md and of docs/index.md are those of one run, in docs/figures/demo.json."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def told():
    path = ROOT / "docs" / "figures" / "demo.json"
    if not path.exists():
        pytest.skip("no docs/figures/demo.json: `make figures` writes it")
    return json.loads(path.read_text(encoding="utf-8"))


def points(number):
    return f"{100 * number:.2f}"


def page(name):
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


def test_readme(told):
    gain, best = told["gain"], next(p for p in told["players"] if p["name"] == told["best_single"])
    optimal = next(player for player in told["players"] if player["kind"] == "optimal")
    text = page("README.md")
    before, after = (points(row["worst"]["value"]) for row in (best, optimal))
    assert f"best of them holds {before} % of the images and the optimal mixture {after} %" in text
    assert f"on the {told['images']} images that the weights were not fitted on" in text
    assert f"gain is {points(gain['low'])} to {points(gain['high'])} points" in text
    assert gain["low"] < 0.01, "the page advises against randomising"
    behind = next(place for place in told["ranking"] if place["kind"] == "optimal")["behind"]
    first = told["ranking"][0]
    assert first["kind"] == "ensemble"
    assert f"The {first['name']}, a deterministic ensemble, is better" in text
    lead, low, high = (points(behind[name]) for name in ("value", "low", "high"))
    assert f"{lead} points ahead of the optimal mixture, {low} to {high}" in text


def test_start_page(told):
    gain = told["gain"]
    text = page("docs/index.md")
    assert f"The optimal one gains {points(gain['value'])} points" in text
    assert f"gain on the {told['images']} images" in text
    assert f"is {points(gain['low'])} to {points(gain['high'])} points" in text
    assert f"{points(told['bound'])} % on the images fitted on" in text
    assert gain["low"] < 0 < gain["high"], "the page says that the gain is not sure"


def test_the_patch_on_both_pages(told):
    patch = told["patch"]
    size, gain = patch["settings"]["size"], patch["gain"]
    certificate = patch["certificate"]
    assert patch["settings"]["data"] == "fashion-mnist"
    assert gain["low"] > 0, "the pages say that it pays"
    certified = f"{points(certificate['certified']['value'])} % of {certificate['reported']:,}"
    readme, start = page("README.md"), page("docs/index.md")
    assert f"whatever is written into {size} x {size} pixels, {certified} test images" in readme
    assert f"The certificate of the mixture, {certified} images" in start
    plain, hardened = (points(rival["attacked"]["value"]) for rival in patch["rivals"])
    assert f"leaves {plain} % to one network" in readme
    assert f"and {hardened} % to one that was trained on patches" in readme
    ends = points(gain["low"]), points(gain["high"])
    assert f"at least {points(gain['value'])} points, {ends[0]} to {ends[1]}" in readme
    assert f"at least {points(gain['value'])} points ahead" in start
    assert f"({ends[0]} to {ends[1]})" in start
