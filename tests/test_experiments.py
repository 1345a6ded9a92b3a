"""The paper's tables: their records, and the runs that fill them."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from hierarchical_lvae.cli import main
from hierarchical_lvae.experiments import TABLES, Row, Table, run_table
from hierarchical_lvae.scoring import Settings
from hierarchical_lvae.training import FitOptions

FEW = {"steps": 3, "batch": 2, "num_neighbours": 2, "latent_dim": 3}
SETTINGS = Settings(train=120, test=60, neighbourhoods=2, draws=5, images=10, features="factors")
SMALL = Table(
    "a small table",
    {"dataset": "digits", "neighbourhood": "noise"},
    {"gap": ("mig", "mig"), "no such": ("mig", "parts", "x")},
    (Row("plain", {"alpha": 0.0}, (0.1, None)), Row("local", {"alpha": 1.0}, (0.2, 0.3))),
)


@pytest.fixture
def run(tmp_path):
    return lambda table=SMALL, **more: list(
        run_table(table, tmp_path, "quick", settings=SETTINGS, progress=False, **{**FEW, **more})
    )


@pytest.mark.parametrize("name", TABLES)
def test_every_row_is_a_fit_and_has_a_value_a_column(name):
    table = TABLES[name]
    for row in table.rows:
        options = FitOptions.of("paper", **{**table.options, **row.options})
        assert (options.steps, options.batch) == (300_000, 25)
        assert len(row.published) == len(table.columns)
    assert len({row.name for row in table.rows}) == len(table.rows)


def test_the_published_values_hang_together():
    """Colour accuracies that Table 1 implies, as in the paper: lost from the codes at α = 1, kept by the plain VAE."""
    published = {row.name: row.published for row in TABLES["table1"].rows}
    colour = {name: (6 * row[2] - 3 * row[5]) / 3 for name, row in published.items() if row[0] is not None}
    assert colour["alpha-0"] == pytest.approx(0.859, abs=1e-3)
    assert colour["alpha-1"] == pytest.approx(0.189, abs=1e-3)
    assert all(0 <= value <= 1 for value in colour.values())
    assert published["alpha-1"] == TABLES["table5"].rows[0].published


def test_rows_are_run_once(run, tmp_path, monkeypatch):
    results = run(seeds=(0, 1))
    assert [(result.row.name, result.seed) for result in results] == [
        ("plain", 0), ("plain", 1), ("local", 0), ("local", 1)
    ]  # fmt: skip
    for result in results:
        saved = json.loads((tmp_path / f"{result.row.name}-{result.seed}/metrics.json").read_text())
        assert result.values == (saved["mig"]["mig"], None)
    monkeypatch.setattr("hierarchical_lvae.experiments.fit", None)
    monkeypatch.setattr("hierarchical_lvae.scoring.scores.encode", None)
    assert [result.values for result in run(seeds=(0, 1))] == [result.values for result in results]
    assert [result.row.name for result in run(rows=("local",))] == ["local"]
    with pytest.raises(ValueError, match="no row is called 'locale': did you mean 'local'"):
        run(rows=("locale",))


def test_an_interrupted_row_goes_on(run, tmp_path):
    whole = run(rows=("local",))[0]
    model = (tmp_path / "local-0/model.safetensors").read_bytes()
    (tmp_path / "local-0").rename(tmp_path / "kept")
    first = run(rows=("local",), steps=2)[0]
    assert first.values != whole.values
    assert run(rows=("local",))[0].values == whole.values  # three steps: one more
    assert (tmp_path / "local-0/model.safetensors").read_bytes() == model
    assert run(rows=("local",), steps=1)[0].options.steps == 3  # steps never shrink
    with pytest.raises(ValueError, match="local-0 was begun with other options: choose another directory"):
        run(rows=("local",), batch=3)


def test_only_what_is_finished_is_told_if_asked(run, tmp_path):
    assert run(finished_only=True) == []
    run(rows=("plain",))
    assert [result.row.name for result in run(finished_only=True)] == ["plain"]
    assert not (tmp_path / "local-0").exists()


def test_the_command_prints_and_leaves_the_table(tmp_path, monkeypatch):
    monkeypatch.setenv("HLVAE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("hierarchical_lvae.evaluation.factor_classifier.STEPS", 5)
    rows = tuple(replace(row, published=(*row.published, 5.0)) for row in SMALL.rows)
    columns = {**SMALL.columns, "distance": ("fid", "distance")}
    table = replace(SMALL, columns=columns, rows=rows, options={**SMALL.options, **FEW})
    monkeypatch.setitem(TABLES, "table5", table)
    monkeypatch.setattr("hierarchical_lvae.scoring.images.inception", refuse)
    command = ["reproduce", "table5", "--seeds", "2", "--points", "120", "60", "--images", "10", "--steps", "2"]
    result = CliRunner().invoke(main, [*command, "--rows", "local", "--device", "cpu", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "data: handwritten digits of scikit-learn (real scans)" in result.stdout
    assert "features: FD-factors of 10 images" in result.stdout
    assert "protocol: 2 steps of B = 2, K = 2" in result.stdout, result.stdout
    (local,) = [line for line in result.stdout.splitlines() if line.startswith("| local")]
    gap, missing, distance = (cell.strip() for cell in local.split("|")[3:6])
    assert gap.startswith("0.200 · ")
    assert "±" in gap
    assert missing == "0.300 · not run"
    assert distance.startswith("5.000 · ")
    assert distance.endswith("FD-factors")  # no FID, and no difference to one
    assert (tmp_path / "out/table.md").read_text().strip() == result.stdout.strip()
    csv = (tmp_path / "out/table.csv").read_text().splitlines()
    assert csv[0] == "row,seed,gap,no such,distance,remark"
    assert [line.split(",")[:2] for line in csv[1:]] == [
        ["plain", "published"], ["local", "published"], ["local", "0"], ["local", "1"]
    ]  # fmt: skip
    again = CliRunner().invoke(main, [*command, "--print-only", "--out", str(tmp_path / "out")])
    assert again.stdout == result.stdout


def refuse(*_):
    raise OSError("no weights here")


def test_a_row_that_diverges_says_so_and_the_others_go_on(run):
    wild = replace(SMALL, rows=(Row("wild", {"alpha": 1e6, "lr": 0.1, "clip": 1e9}, (None, None)), SMALL.rows[0]))
    results = run(wild, steps=100)
    assert results[0].values == (None, None)
    assert results[0].remark.startswith("diverged: the loss is")
    assert results[1].values[0] is not None
