"""The paper's tables: their records, and the runs that fill them."""

import json
from contextlib import contextmanager
from dataclasses import replace

import joblib
import pytest
import torch
from click.testing import CliRunner

from hierarchical_lvae.analysis import ScoreSettings
from hierarchical_lvae.cli import main
from hierarchical_lvae.experiments import FIGURES, TABLES, Row, Table, Workers, run_table
from hierarchical_lvae.experiments.rows import fit_options
from hierarchical_lvae.experiments.workers import _followed
from hierarchical_lvae.runs import FitOptions
from hierarchical_lvae.training import resume

FEW = {"steps": 3, "batch": 2, "num_neighbours": 2, "latent_dim": 3}
SETTINGS = ScoreSettings(train=120, test=60, neighbourhoods=2, draws=5, images=10, features="factors")
SMALL = Table(
    "a small table",
    {"dataset": "digits", "neighbourhood": "noise"},
    {"gap": ("mig", "mig"), "no such": ("mig", "parts", "x")},
    (Row("plain", {"alpha": 0.0}, (0.1, None)), Row("local", {"alpha": 1.0}, (0.2, 0.3))),
)


@contextmanager
def threads(number):
    """The number of threads decides how sums are rounded."""
    usual = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(usual)


@pytest.fixture
def run(tmp_path):
    usual = {"settings": SETTINGS, **FEW}
    return lambda table=SMALL, **more: list(run_table(table, tmp_path, "quick", **{**usual, **more}))


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
    assert list(TABLES["table1"].columns)[7] == "informativeness, of colour"
    assert all(row[7] == pytest.approx(colour[name], abs=1e-3) for name, row in published.items() if name in colour)
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
    monkeypatch.setattr("hierarchical_lvae.experiments.rows.fit", None)
    monkeypatch.setattr("hierarchical_lvae.analysis.scores.encode", None)
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
    other = run(rows=("local",), batch=3)[0]
    assert other.remark.startswith("failed: ")
    assert other.remark.endswith("local-0 was started with other options: choose another directory, or move it away")
    assert (tmp_path / "local-0/model.safetensors").read_bytes() == model


def test_a_finished_row_needs_no_checkpoint(run, tmp_path):
    """Such as one copied from another machine without it; only to train further does it."""
    whole = run(rows=("local",))[0]
    (tmp_path / "local-0/state.safetensors").unlink()
    (tmp_path / "local-0/metrics.json").unlink()
    again = run(rows=("local",))[0]
    assert (again.remark, again.values) == ("", whole.values)
    assert "no checkpoint to resume from" in run(rows=("local",), steps=4)[0].remark


def test_a_row_that_ended_before_its_first_checkpoint_begins_anew(run, tmp_path):
    whole = run(rows=("local",))[0]
    kept = ("options.json", ".hlvae.lock")
    for file in [file for file in (tmp_path / "local-0").iterdir() if file.name not in kept]:
        file.unlink()
    again = run(rows=("local",))[0]
    assert (again.remark, again.values) == ("", whole.values)


def test_what_is_only_read_is_left_as_it_is(run, tmp_path, monkeypatch):
    """Neither the steps of another protocol nor lacking scores make `finished_only` train or score."""
    run(rows=("plain",))
    files = {path: path.read_bytes() for path in (tmp_path / "plain-0").rglob("*") if path.is_file()}
    for name in ("fit", "resume", "load_run", "score"):
        monkeypatch.setattr(f"hierarchical_lvae.experiments.rows.{name}", None)
    (result,) = run(finished_only=True, steps=1000)
    assert result.options.steps == 3
    assert result.values[0] is not None
    assert result.source.startswith("handwritten digits")
    assert {path: path.read_bytes() for path in files} == files
    (tmp_path / "plain-0/metrics.json").unlink()
    assert run(finished_only=True)[0].remark == "not scored: leave out `finished_only`"


def test_scores_that_are_not_current_are_not_read(run, tmp_path, monkeypatch):
    """Such as those of a fit that was trained further, of an earlier definition, or of one that then diverged."""
    (scored,) = run(rows=("local",))
    (read,) = run(rows=("local",), finished_only=True)
    assert read.values == scored.values
    with monkeypatch.context() as patch:
        patch.setattr("hierarchical_lvae.analysis.scores.VERSION", 0)
        assert run(rows=("local",), finished_only=True)[0].values == (None, None)
    resume(tmp_path / "local-0", 4)
    (stale,) = run(rows=("local",), finished_only=True)
    assert (stale.options.steps, stale.values, stale.scores) == (4, (None, None), {})
    assert stale.remark == "not scored: leave out `finished_only`"
    run(rows=("local",), steps=4)
    state = json.loads((tmp_path / "local-0/state.json").read_text())
    (tmp_path / "local-0/state.json").write_text(json.dumps({**state, "status": "diverged", "why": "the loss is nan"}))
    (diverged,) = run(rows=("local",), finished_only=True)
    assert (diverged.remark, diverged.values) == ("diverged: the loss is nan", (None, None))


def test_a_damaged_state_is_a_row_that_says_so(run, tmp_path):
    run()
    (tmp_path / "plain-0/state.json").write_text("")
    results = {result.row.name: result for result in run(finished_only=True)}
    assert "state.json is damaged" in results["plain"].remark
    assert results["local"].remark == ""
    with _followed({tmp_path / "plain-0": 3, tmp_path / "local-0": 3}):
        pass


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_of_rows_of_its_table(name):
    figure = FIGURES[name]
    assert figure.rows
    assert set(figure.rows) <= {row.name for row in TABLES[figure.table].rows}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_many_workers_find_what_one_finds(run, tmp_path):
    """Two processes: the same weights to the last bit, the same scores, and nothing is run again afterwards."""
    with threads(max(1, joblib.cpu_count() // 2)):  # as each of them has
        one = {result.row.name: result for result in run()}
    weights = {name: (result.path / "model.safetensors").read_bytes() for name, result in one.items()}
    for name in one:
        (tmp_path / f"{name}-0").rename(tmp_path / f"kept-{name}")
    many = {result.row.name: result for result in run(workers=Workers(2))}
    for name, result in many.items():
        assert (result.path / "model.safetensors").read_bytes() == weights[name]
        assert result.values == one[name].values
        assert (result.options, result.source) == (one[name].options, one[name].source)


def test_a_dask_cluster_finds_what_one_process_finds(run, tmp_path):
    distributed = pytest.importorskip("distributed")
    with threads(1):
        one = {result.row.name: result.values for result in run()}
    for name in one:
        (tmp_path / f"{name}-0").rename(tmp_path / f"kept-{name}")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        many = run(workers=Workers(dask=cluster.scheduler_address))
    assert {result.row.name: result.values for result in many} == one


def test_a_cluster_that_is_not_there_is_one_line(run, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("hierarchical_lvae.experiments.workers.ANSWER_WITHIN", 0.5)
    with pytest.raises(OSError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9 .*: is it running"):
        run(workers=Workers(dask="tcp://127.0.0.1:9"))


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
    monkeypatch.setattr("hierarchical_lvae.analysis.images.inception", refuse)
    command = [
        "reproduce",
        "table5",
        "--seeds",
        "2",
        "--points",
        "120",
        "60",
        "--images",
        "10",
        "--steps",
        "2",
        "--jobs",
        "1",
    ]
    result = CliRunner().invoke(main, [*command, "--rows", "local", "--device", "cpu", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "data: handwritten digits from scikit-learn (real scans)" in result.stdout
    assert "features: FD-factors of 10 images" in result.stdout
    assert "protocol: 2 steps, B = 2, K = 2" in result.stdout, result.stdout
    (local,) = [line for line in result.stdout.splitlines() if line.startswith("| local")]
    gap, missing, distance = (cell.strip() for cell in local.split("|")[3:6])
    assert gap.startswith("0.200 · ")
    assert "±" in gap
    assert missing == "0.300 · not scored"
    assert distance.startswith("5.000 · ")
    assert distance.endswith("FD-factors")  # no FID, and no difference to one
    assert (tmp_path / "out/table.md").read_text().strip() == result.stdout.strip()
    csv = (tmp_path / "out/table.csv").read_text().splitlines()
    assert csv[0] == "row,seed,gap,no such,distance,remark"
    assert (tmp_path / "out/figures/table.png").read_bytes()[1:4] == b"PNG"
    assert [line.split(",")[:2] for line in csv[1:]] == [["local", "published"], ["local", "0"], ["local", "1"]]
    again = main_(*command, "--print-only", "--out", str(tmp_path / "out"))
    assert "| plain | 0 | 0.100 · not run |" in again.stdout
    assert local in again.stdout.splitlines()
    other = main_(*command, "--rows", "plain", "--device", "cpu", "--out", str(tmp_path / "out"))
    assert local in other.stdout.splitlines()  # what ended before keeps its place
    assert "| plain | 2 | 0.100 · 0." in other.stdout


def refuse(*_):
    raise OSError("no weights here")


def test_a_row_that_diverges_says_so_and_the_others_go_on(run, monkeypatch):
    wild = replace(SMALL, rows=(Row("wild", {"alpha": 1e6, "lr": 0.1, "clip": 1e9}, (None, None)), SMALL.rows[0]))
    results = run(wild, steps=100)
    assert results[0].values == (None, None)
    assert results[0].remark.startswith("diverged: the loss is")
    assert results[1].values[0] is not None
    monkeypatch.setattr("hierarchical_lvae.experiments.rows.resume", None)
    again = run(wild, steps=100, rows=("wild",), finished_only=True)
    assert [result.remark for result in again] == [results[0].remark]  # it is remembered, and not run again


def test_a_row_that_fails_says_why_and_the_others_go_on(run, tmp_path):
    (tmp_path / "plain-0").write_text("in the way")
    failed, other = run()
    assert failed.remark.startswith(f"failed: {tmp_path}/plain-0 is a file, not a directory")
    assert "\n" not in failed.remark
    assert other.values[0] is not None


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_from_the_runs_of_their_table(name, tmp_path, monkeypatch):
    rows = tuple(replace(row, options={**row.options, **FEW}) for row in TABLES["table1"].rows)
    monkeypatch.setitem(TABLES, "table1", replace(TABLES["table1"], options={"dataset": "digits"}, rows=rows))
    kept = ",".join(FIGURES[name].rows[:3])
    command = ["reproduce", name, "--steps", "2", "--device", "cpu", "--out", str(tmp_path)]
    assert main_(*command, "--print-only").exit_code == 1
    result = main_(*command, "--rows", kept, "--jobs", "1")
    assert result.exit_code == 0, result.output
    path = tmp_path / "figures" / f"{name}.png"
    assert result.stdout.strip() == str(path)
    assert path.read_bytes()[1:4] == b"PNG"
    assert {file.name for file in tmp_path.iterdir()} == {"figures", *(f"{row}-0" for row in kept.split(","))}
    path.unlink()
    assert main_(*command, "--print-only").exit_code == 0
    assert path.exists()
    assert main_(*command, "--seeds", "2").exit_code == 2


def test_the_table_tells_what_failed_and_the_command_too(tmp_path, monkeypatch):
    """The row that failed says so in its cells and why below, with exit code 1; the others have their values."""
    table = replace(SMALL, columns={**SMALL.columns, "distance": ("fid", "distance")}, options={**SMALL.options, **FEW})
    table = replace(table, rows=tuple(replace(row, published=(*row.published, None)) for row in table.rows))
    monkeypatch.setitem(TABLES, "table5", table)
    monkeypatch.setattr("hierarchical_lvae.evaluation.factor_classifier.STEPS", 5)
    monkeypatch.setattr("hierarchical_lvae.analysis.images.inception", refuse)
    (tmp_path / "plain-0").write_text("in the way")
    (tmp_path / "data").mkdir()
    sizes = ("--points", "120", "60", "--images", "10", "--steps", "2", "--jobs", "1", "--device", "cpu")
    result = main_("reproduce", "table5", *sizes, "--out", str(tmp_path), "--data-dir", str(tmp_path / "data"))
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert "| plain | 1 | 0.100 · failed | – · failed | – · failed |" in lines
    assert lines[-1].startswith(f"- plain, seed 0: failed: {tmp_path}/plain-0 is a file, not a directory")
    assert any(line.startswith("| local | 1 | 0.200 · 0.") for line in lines)


def main_(*arguments):
    return CliRunner().invoke(main, arguments)


def test_beta_of_a_row_counts_from_the_presets():
    """At 32×32 the paper's balance of β = 1 is 0.25, and of its row β = 4 it is 1."""
    table = TABLES["table1"]
    rows = {row.name: row for row in table.rows}
    found = {
        (preset, name): fit_options(table, rows[name], preset, {"seed": 0}).beta
        for preset in ("quick", "paper")
        for name in ("alpha-0", "beta-4")
    }
    assert found == {
        ("quick", "alpha-0"): 0.25, ("quick", "beta-4"): 1.0, ("paper", "alpha-0"): 1.0, ("paper", "beta-4"): 4.0
    }  # fmt: skip
    assert fit_options(table, rows["beta-4"], "quick", {"beta": 3.0}).beta == 3.0  # the caller's goes first


def test_a_table_is_read_back_by_the_codes_that_were_scored(run, tmp_path, monkeypatch):
    table = replace(SMALL, columns={"gap": ("mig", "mig")}, rows=(Row("local", SMALL.rows[1].options, (0.2,)),))
    local, meta = (run(table, settings=replace(SETTINGS, codes=codes))[0].values for codes in ("local", "meta"))
    for codes, values in (("local", local), ("meta", meta)):
        (again,) = run(table, settings=ScoreSettings(codes=codes), finished_only=True)
        assert again.values == values
    monkeypatch.setitem(TABLES, "table5", table)
    printed = main_("reproduce", "table5", "--codes", "meta", "--print-only", "--out", str(tmp_path)).stdout
    assert f"{meta[0]:.3f}" in printed
    command = main_("reproduce", "table5", "--codes", "meta", "--dry-run", "--out", str(tmp_path)).stdout
    assert "--codes meta" in command
