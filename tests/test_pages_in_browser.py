"""Five pages of the site in a browser without a window, at the width of a desktop and of a phone.

Nothing sticks out, pictures are there, text can be read in light and dark colours. The pages lie in
frames of one page, whose script measures them, so that the browser starts once for the figures and
once for the screenshot.
"""

import html
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("index", "game", "reach", "which-tool", "gallery/table")
WIDTHS = {"desktop": 1280, "phone": 390}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SETTINGS = """
INHERIT: {root}/mkdocs.yml
docs_dir: {root}/docs
site_dir: {site}
theme:
  custom_dir: {root}/docs/overrides
plugins: [search]
hooks: [{root}/docs/text.py, {root}/docs/results.py, {root}/docs/commands.py]
"""
# The reference is made from the packages, which takes long; its pages are not looked at here.
MEASURE = """
const light = colour => {
  const parts = colour.match(/[\\d.]+/g).map(Number);
  const linear = parts.slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const bright = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  return [bright, parts.length > 3 ? parts[3] : 1];
};
const measured = frame => {
  const page = frame.contentDocument, view = frame.contentWindow, root = page.documentElement;
  const style = node => view.getComputedStyle(node);
  const still = page.createElement("style");
  still.textContent = "* { transition: none !important }";
  page.head.append(still);
  const contrast = {};
  for (const scheme of ["default", "slate"]) {
    page.body.setAttribute("data-md-color-scheme", scheme);
    const behind = light(style(page.body).backgroundColor)[0];
    contrast[scheme] = Math.min(...["article p", "article math", "article code", "article td"]
      .flatMap(kind => [...page.querySelectorAll(kind)].slice(0, 3)).map(node => {
        const [ink, opaque] = light(style(node).color);
        const seen = opaque * ink + (1 - opaque) * behind;
        return (Math.max(seen, behind) + 0.05) / (Math.min(seen, behind) + 0.05);
      }));
  }
  const pictures = [...page.querySelectorAll("article img")];
  return {
    wide: root.scrollWidth - view.innerWidth,
    text: page.querySelector("article").innerText.length,
    pictures: pictures.length,
    broken: pictures.filter(own => !own.naturalWidth).map(own => own.src),
    small: pictures.filter(own => own.getBoundingClientRect().width < 590).length,
    bare: pictures.filter(own => light(style(own).backgroundColor)[0] < 0.9).length,
    contrast: contrast,
  };
};
window.addEventListener("load", () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) found[frame.name] = measured(frame);
  document.getElementById("found").textContent = JSON.stringify(found);
});
"""


def started(browser, page, *options):
    """What the browser prints about a page, run without a window and without its sandbox."""
    folder = page.parent / "profile"
    arguments = (
        "--headless --no-sandbox --disable-gpu --hide-scrollbars --allow-file-access-from-files "
        "--disable-dev-shm-usage --virtual-time-budget=20000"
    )
    command = [browser, *arguments.split(), f"--user-data-dir={folder}", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: one of {', '.join(BROWSERS)} in PATH shows the pages")
    return found


@pytest.fixture(scope="module")
def harness(browser, tmp_path_factory):
    """A page with all pages in frames, beside the site."""
    for needed in ("mkdocs", "material", "latex2mathml"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed: pip install 'mixsolve[docs]' builds the site")
    folder = tmp_path_factory.mktemp("pages")
    settings = folder / "mkdocs.yml"
    settings.write_text(SETTINGS.format(root=ROOT, site=folder / "site"))
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--config-file", str(settings)]
    subprocess.run(build, check=True, capture_output=True, cwd=ROOT)
    frames = "".join(
        f'<iframe name="{page} {device}" src="site/{page}.html" width="{width}" height="900" '
        'style="border: 0"></iframe>'
        for device, width in WIDTHS.items()
        for page in PAGES
    )
    path = folder / "all.html"
    path.write_text(f'{frames}<pre id="found"></pre><script>{MEASURE}</script>')
    return path


@pytest.fixture(scope="module")
def measured(browser, harness):
    printed = started(browser, harness, "--dump-dom")
    return json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', printed)[1]))


@pytest.mark.parametrize("device", WIDTHS)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_fits_and_can_be_read(page, device, measured):
    found = measured[f"{page} {device}"]
    assert found["text"] > 1000
    assert found["wide"] <= 0, "the page scrolls sideways"
    assert found["broken"] == []
    assert found["small"] == 0, "labels need some width, on a phone too"
    assert found["bare"] == 0, "pictures stand on white, in dark colours too"
    assert min(found["contrast"].values()) >= 4.5  # the least of the WCAG 2.1, level AA


def test_the_pages_have_pictures_to_look_at(measured):
    assert sum(found["pictures"] for found in measured.values()) >= 6


def test_a_screenshot_shows_a_page(browser, harness, tmp_path):
    image = pytest.importorskip("matplotlib.image")
    shot = tmp_path / "index.png"
    page = harness.parent / "site" / "index.html"
    started(browser, page, f"--screenshot={shot}", "--window-size=500,800")
    pixels = image.imread(shot)[..., :3]
    assert pixels.shape[:2] == (800, 500)
    rows = pixels[100:].reshape(700, -1)
    inked = (np.ptp(rows, axis=1) > 0.3).mean()
    assert 0.2 < inked < 1  # lines of text, and white between them
