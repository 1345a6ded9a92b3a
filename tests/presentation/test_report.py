"""The page that tells of a run: what it says, that it says it of hostile names too, and that it needs nothing else."""

import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from hierarchical_lvae.cli import main
from hierarchical_lvae.files import append_json_line
from hierarchical_lvae.presentation.figures import DRAWN
from hierarchical_lvae.runs import FitOptions
from hierarchical_lvae.training import fit

DIGITS = {"dataset": "digits", "steps": 2, "batch": 2, "num_neighbours": 2}
DIAGNOSIS = {"loss_before": 90.0, "loss_after": 60.0, "distance": 0.5, "sharpness": 1.25}
COMPARED = """part,method,random_parameters,held_out,gain,gain_error,evidence,calibration,coverage,k_hat,loo,cost
all weights,one-step,0,-22.125,0.0,0.0,,0.0125,,,,1.0
block,nuts,42,-21.5,0.625,0.25,,0.01,0.875,,-20.0,1234.5
"""


def report(run, *args):
    return CliRunner().invoke(main, ["report", str(run), *args])


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    """A run whose figures are drawn."""
    run = tmp_path_factory.mktemp("report") / "run"
    fit(FitOptions.of("quick", **DIGITS), run)
    result = report(run)
    assert result.exit_code == 0, result.output
    return run


@pytest.fixture
def run(fitted, tmp_path):
    """A copy of it, its figures a dot each: pages are quick, and their size does not matter."""
    shutil.copytree(fitted, tmp_path / "run")
    dot = next((fitted / "figures").glob("*.png")).read_bytes()
    for name in DRAWN:
        (tmp_path / f"run/figures/{name}.png").write_bytes(dot)
    (tmp_path / "run/report.html").unlink()
    return tmp_path / "run"


class Page(HTMLParser):
    """Its text, its rows, its images, and all that it refers to."""

    def __init__(self, path):
        super().__init__()
        self.text, self.references, self.ids, self.tags, self.images = "", [], [], [], []
        self.feed(path.read_text())
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "srcset", "action", "poster", "data", "background", "xlink:href"):
                self.references.append(value)
            if name == "id":
                self.ids.append(value)
            if name == "style":
                self.references += re.findall(r"url\((.*?)\)", value)
        if tag == "img":
            self.images.append(dict(attributes))
        if tag in ("tr", "h2", "p", "dt", "nav", "caption", "figcaption"):
            self.text += "\n"

    def handle_data(self, data):
        self.text += " " + data.strip()

    @property
    def lines(self):
        return [" ".join(line.split()) for line in self.text.splitlines()]


def page(run):
    result = report(run)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{run / 'report.html'}\n"
    return Page(run / "report.html")


def test_it_says_what_was_trained_and_shows_the_figures(run):
    found = page(run)
    assert "Data handwritten digits from scikit-learn (real scans)" in found.lines
    assert "Fit 2 of 2 steps" in found.lines
    assert "Seed 0 (a single fit: this page does not show how results vary across seeds)" in found.lines
    assert (
        "Local VAE, α = 1 (per pixel), one-step, latent-knn neighbours, B = 2, K = 2, preset quick, changed"
        in found.lines
    )
    versions = json.loads((run / "options.json").read_text())["versions"]
    assert {f"torch {versions['torch']}", "latent_dim 10", "data: images 1797", "clip 500.0"} <= set(found.lines)
    assert len(found.images) == len(DRAWN)
    assert all(image["src"].startswith("data:image/png;base64,iVBOR") and image["alt"] for image in found.images)


def test_what_is_missing_comes_with_the_command_that_makes_it(run):
    found = page(run)
    missing = [line for line in found.lines if line.startswith("Missing")]
    assert "dci, mig" in missing[0]
    assert f"hlvae evaluate {run} --metrics dci,mig" in missing[0]
    assert missing[1] == f"Missing: comparison of local posteriors. Run hlvae compare {run}"


def test_scores_and_comparison_are_tables(run):
    few = ["--metrics", "mig,iwae", "--points", "60", "30", "--draws", "2"]
    assert CliRunner().invoke(main, ["evaluate", str(run), *few]).exit_code == 0
    (run / "compare.csv").write_text(COMPARED)
    shutil.copy(run / "figures/training.png", run / "figures/forest.png")
    lines = page(run).lines
    mig = json.loads((run / "metrics.json").read_text())["mig"]["mig"]
    assert f"mig {mig:.3f}" in lines
    assert "mig (seed 0, codes local, train 60, test 30)" in lines
    assert any(line.startswith("active units") for line in lines)
    assert "one-step 0 -22.12 +0.00 0.00 – 0.0125 – – – 1.0" in lines
    assert "nuts 42 -21.50 +0.62 0.25 – 0.0100 88% – -20.00 1,234.5" in lines
    assert not any("compare" in line and line.startswith("Missing") for line in lines)
    assert any(line.startswith("Missing: dci, sap") for line in lines)
    assert lines.index("Local posteriors") < next(i for i, line in enumerate(lines) if "the block of" in line.lower())


def test_scores_of_earlier_weights_are_called_so(run):
    assert CliRunner().invoke(main, ["evaluate", str(run), "--metrics", "mig", "--points", "60", "30"]).exit_code == 0
    saved = json.loads((run / "metrics.json").read_text())
    saved["mig"]["settings"]["model"] = "0" * 16
    (run / "metrics.json").write_text(json.dumps(saved))
    lines = page(run).lines
    assert "mig of earlier weights (seed 0, codes local, train 60, test 30)" in lines
    assert any(line.startswith("Missing: dci, mig") for line in lines)


def test_scores_of_an_earlier_definition_are_called_so(run, monkeypatch):
    assert CliRunner().invoke(main, ["evaluate", str(run), "--metrics", "mig", "--points", "60", "30"]).exit_code == 0
    monkeypatch.setattr("hierarchical_lvae.analysis.scores.VERSION", 99)
    lines = page(run).lines
    assert "mig of an earlier definition (seed 0, codes local, train 60, test 30)" in lines
    assert any(line.startswith("Missing: dci, mig") for line in lines)


def test_more_points_than_images_are_an_upper_bound(run):
    assert CliRunner().invoke(main, ["evaluate", str(run), "--metrics", "mig"]).exit_code == 0
    assert "mig (seed 0, codes local, train at most 10000, test at most 5000)" in page(run).lines


def test_scores_of_meta_codes_are_current_or_not_by_themselves(run):
    """Those of earlier weights do not make the report ask for the current ones of local codes, and the reverse."""
    few = ["--metrics", "mig", "--points", "60", "30"]
    for codes in ("local", "meta"):
        assert CliRunner().invoke(main, ["evaluate", str(run), *few, "--codes", codes]).exit_code == 0
    saved = json.loads((run / "metrics.json").read_text())
    saved["mig-meta"]["settings"]["model"] = "0" * 16
    (run / "metrics.json").write_text(json.dumps(saved))
    lines = page(run).lines
    missing = [line for line in lines if line.startswith("Missing")]
    assert missing[0].startswith("Missing: dci, sap,")
    assert missing[1] == (f"Missing: mig for meta codes. Run hlvae evaluate {run} --metrics mig --codes meta")
    assert "mig (seed 0, codes local, train 60, test 30)" in lines
    assert "mig of earlier weights (seed 0, codes meta, train 60, test 30)" in lines
    saved["mig-meta"], saved["mig"] = saved["mig"], saved["mig-meta"]
    (run / "metrics.json").write_text(json.dumps(saved))
    missing = [line for line in page(run).lines if line.startswith("Missing")]
    assert missing[0].startswith("Missing: dci, mig, sap,")
    assert "meta codes" not in missing[1]


def test_a_score_names_the_factors_that_it_leaves_out(run):
    scores = {"dci": {"settings": {}, "completeness": 0.5, "left_out": {"<b>$x$\n": "constant"}}}
    (run / "metrics.json").write_text(json.dumps(scores))
    found = page(run)
    assert "left out <b>$x$ (constant)" in found.lines
    assert "b" not in found.tags


def test_the_log_is_read_for_its_health(run):
    for step, extra in ((50, {}), (500, DIAGNOSIS), (1000, {**DIAGNOSIS, "loss_after": 95.0, "sharpness": -2.5})):
        entry = {"step": step, "loss": 8000 - step, "gradient_norm": step, "images_per_second": 10.0, **extra}
        append_json_line(run / "log.jsonl", entry)
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 1050, "lo')
    text = "\n".join(page(run).lines)
    assert re.search(r"loss of the queries, first → last [\d.,]+ → 7,000.0 nats per image", text)
    assert re.search(r"largest [\d.]+ · 1e\+03 clipped at 500 in 25% of the logged steps", text)
    assert "step 1,000 90.0 → 95.0 nats; the step does not lower it (+2.50 per image): try a smaller α" in text
    assert "last · largest -2.5 · 2.5 not below 2: unstable for a quadratic loss; try a smaller α" in text


def test_a_diagnosis_that_is_not_finite_is_left_out(run):
    """As if a step overshoots that is then skipped."""
    for step, after in ((500, 60.0), (1000, math.inf)):
        entry = {"step": step, "loss": 90.0, "gradient_norm": 1.0, "images_per_second": 10.0, **DIAGNOSIS}
        append_json_line(run / "log.jsonl", {**entry, "loss_after": after})
    assert any("step 500 90.0 → 60.0 nats" in line for line in page(run).lines)


def test_skipped_steps_are_counted_if_there_are_any(run):
    assert not any(line.startswith("skipped steps") for line in page(run).lines)
    for step, skipped in ((50, 2), (100, 1)):
        entry = {"step": step, "loss": 90.0, "gradient_norm": 1.0, "images_per_second": 10.0, "skipped": skipped}
        append_json_line(run / "log.jsonl", entry)
    assert "skipped steps 3 of 100 loss or gradient not finite: no weight changed" in page(run).lines


def test_a_log_without_gradient_norms_is_reported(run):
    """The norm is null where the logged step was skipped."""
    entry = {"step": 4, "loss": 90.0, "gradient_norm": None, "skipped": 1, "images_per_second": 10.0}
    (run / "log.jsonl").write_text(json.dumps(entry) + "\n")
    lines = page(run).lines
    assert "skipped steps 1 of 4 loss or gradient not finite: no weight changed" in lines
    assert not any("meta-gradient" in line for line in lines)


def test_names_with_signs_of_html_stay_names(run):
    hostile = run.with_name("""<script>alert('"1"')</script> & more""".replace("/", "∕"))
    run.rename(hostile)
    saved = json.loads((hostile / "options.json").read_text())
    saved["data"]["source"] = '"><img src=http://example.org/x onerror=alert(1)> & </style><script>'
    saved["neighbourhood"] = "graph:/tmp/<b>'\"&.npz"
    saved["data_dir"] = "bytes \udcff that are not UTF-8"
    (hostile / "options.json").write_text(json.dumps(saved))
    found = page(hostile)
    assert "script" not in found.tags
    assert "b" not in found.tags
    assert len(found.images) == len(DRAWN)
    assert any(saved["data"]["source"] in line for line in found.lines)
    assert any(saved["neighbourhood"] in line for line in found.lines)
    assert any(r"bytes \udcff that are not UTF-8" in line for line in found.lines)


def test_it_refers_to_nothing_outside_itself(run):
    found = page(run)
    assert {"script", "iframe", "object", "embed", "video", "audio", "form"}.isdisjoint(found.tags)
    assert [url for url in found.references if not url.startswith(("data:", "#"))] == []
    assert {url[1:] for url in found.references if url.startswith("#")} <= set(found.ids)
    source = (run / "report.html").read_text()
    assert "@import" not in source
    assert re.findall(r"url\((?!data:)", source) == []
    assert "default-src 'none'" in source


def test_an_unfinished_run_is_reported_with_fresh_figures(run):
    state = json.loads((run / "state.json").read_text())
    (run / "state.json").write_text(json.dumps({**state, "status": "interrupted", "step": 1}))
    (run / "log.jsonl").write_text("")
    before = (run / "figures/figure2.png").read_bytes()
    lines = page(run).lines
    assert "Fit 1 of 2 steps: interrupted, not finished" in lines
    assert "log – nothing has been logged yet" in lines
    assert (run / "figures/figure2.png").read_bytes() != before


def test_a_plain_vae_has_no_local_posteriors_to_compare(tmp_path):
    fit(FitOptions.of("quick", **DIGITS, alpha=0.0), tmp_path / "plain")
    lines = page(tmp_path / "plain").lines
    assert any(line.startswith("VAE (α = 0)") for line in lines)
    assert "With α = 0, no weights are local, so there is nothing to compare." in lines
    assert not any("sharpness" in line for line in lines)


def test_a_failure_is_one_line_and_leaves_the_page_as_it_was(run, monkeypatch):
    page(run)
    before = (run / "report.html").read_bytes()
    (run / "metrics.json").write_text("{")
    damaged = report(run)
    assert damaged.exit_code == 1
    assert "metrics.json is not a JSON object" in damaged.stderr
    (run / "metrics.json").unlink()
    (run / "compare.csv").write_text("a,b\n1,2\n")
    assert f"run `hlvae compare {run}` again" in report(run).stderr
    (run / "compare.csv").unlink()
    state = (run / "state.json").read_bytes()
    (run / "state.json").write_bytes(state[:10])
    assert f"state.json is damaged: `hlvae fit --resume {run}` writes it again" in report(run).stderr
    (run / "state.json").write_bytes(state)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    broken = report(run)
    assert broken.exit_code == 1
    assert "report.html cannot be written (No space left on device)" in broken.stderr
    monkeypatch.undo()
    for result in (damaged, broken, report(run.parent / "nowhere")):
        assert result.exit_code == 1
        assert len(result.stderr.splitlines()) == 1
    assert (run / "report.html").read_bytes() == before
    assert not [file for file in run.glob(".hlvae-*")]


def test_a_browser_shows_it_without_overflow_and_without_a_request(run):
    browsers = pytest.importorskip("playwright.sync_api")
    (run / "compare.csv").write_text(COMPARED)
    saved = json.loads((run / "options.json").read_text())
    saved["data_dir"] = "/a/long/path/" + "x" * 300
    (run / "options.json").write_text(json.dumps(saved))
    page(run)
    url, asked = (run / "report.html").as_uri(), []
    with browsers.sync_playwright() as playwright:
        installed = shutil.which("chromium") or shutil.which("google-chrome")
        try:
            browser = playwright.chromium.launch(executable_path=installed, args=["--no-sandbox"])
        except browsers.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        backgrounds = set()
        for width, scheme in ((1280, "light"), (400, "dark")):
            tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            tab.on("request", lambda request: asked.append(request.url))
            tab.goto(url)
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
            assert tab.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
            backgrounds.add(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        browser.close()
    assert {address for address in asked if not address.startswith("data:")} == {url}
    assert len(backgrounds) == 2
