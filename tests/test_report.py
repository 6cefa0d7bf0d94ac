"""The page of a run: what is in it, that nothing in a name is run, and how a browser shows it."""

import html.parser
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from tests.cases import small_config
from vamp_jax import choices, page
from vamp_jax.evaluation import report
from vamp_jax.experiment import train_and_evaluate
from vamp_jax.paper import figures
from vamp_jax.paper.numbers import of_paper
from vamp_jax.run.folder import load_config
from vamp_jax.training import best as best_parameters

pytestmark = pytest.mark.slow  # whole runs, half a minute and more each

FIELDS = dict(num_epochs=2, warmup_epochs=1, num_samples=5, batch_size=200)
HOSTILE = "<img src=x onerror=alert(1)> \"'&amp; \u202e</title><script>alert(2)"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


class Elements(html.parser.HTMLParser):
    """Every element with its attributes, and all text."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny finished run in a folder of a hostile name."""
    path = str(tmp_path_factory.mktemp("runs") / HOSTILE.replace("/", "\\"))
    train_and_evaluate(small_config(model="vae", prior="vamp", **FIELDS), path)
    return path


@pytest.fixture(scope="module")
def text(folder):
    """The page that the evaluation wrote."""
    with open(os.path.join(folder, "figures", "report.html"), encoding="utf-8") as file:
        return file.read()


def test_the_page_has_the_numbers_the_pictures_and_every_component(folder, text):
    found = Elements(text)
    for words in ("log-likelihood", "ELBO (train)", "generated from it", "num_epochs"):
        assert words in found.text
    assert len(found.of("details")) == 11 and len(found.of("meter")) == 11
    shares = [float(meter["value"]) for meter in found.of("meter")]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=1e-3)
    # Four pictures of the run; of each component itself, what it makes, and what is near.
    assert len(found.of("img")) == 4 + 3 * 11
    assert all(image["alt"] for image in found.of("img"))


def test_nothing_in_it_is_a_script_or_comes_from_elsewhere(folder, text):
    found = Elements(text)
    assert os.path.basename(folder) in found.text
    assert not found.of("script") and not found.of("link") and not found.of("a")
    allowed = {
        *("http-equiv", "content", "charset", "name", "lang", "class", "id", "src", "alt"),
        *("scope", "tabindex", "value", "min", "max"),
    }
    assert {name for _, attributes in found.found for name in attributes} <= allowed
    assert all(image["src"].startswith("data:image/png;base64,") for image in found.of("img"))
    policy = next(meta for meta in found.of("meta") if "http-equiv" in meta)["content"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy and "http" not in re.sub('base64,[^"]*', "", text).replace(
        "http-equiv", ""
    )


def test_texts_and_attributes_are_escaped_and_strange_letters_are_written():
    made = page.element("p", HOSTILE, page.element("b", "<i>"), title='" onclick="x')
    assert Elements(made).found == [("p", {"title": '" onclick="x'}), ("b", {})]
    assert Elements(made).text == HOSTILE + "<i>"
    lone = os.fsdecode(b"caf\xe9")  # a file name that is no UTF-8
    assert b"caf\\udce9" in page.document(lone, page.element("p", lone))


def test_labels_are_escaped_and_data_that_are_no_images_are_written_out(folder, tmp_path):
    config = load_config(folder)
    data = choices.dataset(config, None)
    run = report.of_best(folder, best_parameters.load(folder, config, data), data, None, None)
    x = np.asarray(data.test[:20] > 0, np.float32)
    labels = np.array([HOSTILE] * 20)
    report.write([run._replace(x=x, labels=labels)], str(tmp_path / "page.html"))
    found = Elements((tmp_path / "page.html").read_text())
    assert found.text.count(HOSTILE) >= 11 and not found.of("script")
    assert "Not evaluated yet" in found.text
    exhibit = report._exhibit(run, np.array([[0.5, 2.0], [1.0, 1e6]]), "two vectors")
    assert Elements(exhibit).text == "0.5 2\n1 1e+06"


def test_a_run_of_the_paper_has_the_paper_s_number():
    assert of_paper("vamp_hvae", "static_mnist") == -83.19
    assert of_paper("mog_hvae", "static_mnist") == -85.07
    assert of_paper("vae", "freyfaces") == 4.63
    assert of_paper("vae", "digits") is None


WIDTHS = (390, 1366)
HARNESS = """<!DOCTYPE html><body><script>
const found = {}, page = PAGE;
async function look(width) {
  const frame = document.createElement("iframe");
  frame.width = width; frame.height = 800; frame.srcdoc = page;
  const loaded = new Promise(done => frame.onload = done);
  document.body.append(frame); await loaded;
  const inside = frame.contentDocument, all = [...inside.querySelectorAll("details")];
  const seen = {wide: inside.documentElement.scrollWidth, open: []};
  seen.styled = frame.contentWindow.getComputedStyle(all[0]).minWidth;
  seen.broken = [...inside.images].filter(image => !image.naturalWidth).length;
  for (const k of [1, 2]) {
    all[k].querySelector("summary").click(); await new Promise(done => setTimeout(done, 50));
    seen.open.push(all.map((each, i) => each.open ? i : -1).filter(i => i >= 0));
  }
  seen.shown = [...all[2].querySelectorAll("figure img")].map(image => image.width);
  seen.wideOpen = inside.documentElement.scrollWidth;
  found[width] = seen; frame.remove();
}
(async () => { for (const width of WIDTHS) await look(width);
  const out = document.createElement("pre"); out.id = "found";
  out.textContent = JSON.stringify(found); document.body.append(out); })();
</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
def test_in_a_browser_components_open_and_nothing_is_too_wide(folder, tmp_path):
    """Two runs side by side, on a phone's width and a laptop's."""
    other = str(tmp_path / "other")
    shutil.copytree(folder, other)
    figures.write_report([folder, other], None, str(tmp_path / "report"))
    shown = json.dumps((tmp_path / "report.html").read_text()).replace("<", "\\u003c")
    harness = HARNESS.replace("WIDTHS", str(list(WIDTHS)), 1).replace("PAGE", shown, 1)
    (tmp_path / "harness.html").write_text(harness)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/user"]
    command = [BROWSER, *flags, "--enable-logging=stderr", "--virtual-time-budget=8000"]
    done = subprocess.run(
        [*command, "--dump-dom", f"file://{tmp_path}/harness.html"],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"HOME": str(tmp_path)},
    )
    assert "Refused to" not in done.stderr and "violates" not in done.stderr
    dump = Elements(done.stdout)
    found = json.loads(dump.text[dump.text.index('{"390"') :])
    for width in WIDTHS:
        seen = found[str(width)]
        assert seen["wide"] <= width and seen["wideOpen"] <= width, seen
        assert seen["broken"] == 0 and seen["styled"] == "0px"
        assert seen["open"] == [[1], [2]]  # one at a time
        assert len(seen["shown"]) == 2 and min(seen["shown"]) > 200
