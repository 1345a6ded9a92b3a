"""`hlvae evaluate` and `compare`: what fails is named, and loses nothing else."""

import errno
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from hierarchical_lvae.cli import main
from hierarchical_lvae.data import Part
from hierarchical_lvae.files import explained
from hierarchical_lvae.presentation.scores import notes
from hierarchical_lvae.runs import FitOptions, load_run
from hierarchical_lvae.training import fit

FEW = ["--points", "60", "30"]
PLAIN = {"level": 3, "cost $": 2}


def hlvae(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def train(path, **bad):
    """A run of two steps on images with factors of so many values, and these."""
    rng = np.random.default_rng(0)
    factors = {name: rng.integers(size, size=90) for name, size in PLAIN.items()}
    images = np.broadcast_to(60 * (1 + factors["level"])[:, None, None], (90, 8, 8)).astype(np.uint8)
    factors |= bad
    np.savez(path / "mine.npz", images=images, factors=np.stack([*factors.values()], 1), factor_names=[*factors])
    options = {"dataset": str(path / "mine.npz"), "steps": 2, "batch": 2, "num_neighbours": 2, "latent_dim": 3}
    fit(FitOptions.of("quick", **options), path / "run")
    return path / "run"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def cells(result):
    """The table by label: its columns are at least two spaces apart."""
    lines = result.stdout.split("\n\n")[1].splitlines()[1:]
    return {label: texts for label, *texts in (re.split(r"  +", line) for line in lines)}


def fail(*_, **__):
    raise FloatingPointError("a number\nis lost")


def test_factors_that_cannot_be_scored_are_left_out(tmp_path, run):
    (tmp_path / "odd").mkdir()
    odd = train(tmp_path / "odd", camera=np.zeros(90, int), id=np.arange(90))
    metrics = ["--metrics", "dci,mig,modularity", *FEW]
    result, plain = hlvae("evaluate", odd, *metrics), hlvae("evaluate", run, *metrics)
    assert result.exit_code == plain.exit_code == 0
    table = cells(result)
    assert table.pop("left out")[-1] == "camera (constant at the 60 training points), id (60 values at 60 points)"
    assert {name: value[-1] for name, value in table.items()} == {n: v[-1] for n, v in cells(plain).items()}
    assert json.loads((odd / "metrics.json").read_text())["dci"]["factors"] == [*PLAIN]
    assert (odd / "figures/importance-local.png").exists()


def test_a_failed_score_is_a_line_and_an_exit_code(run, monkeypatch, caplog):
    metrics = ["evaluate", run, "--metrics", "mig,samples,sap", *FEW]
    with monkeypatch.context() as patch:
        patch.setattr("hierarchical_lvae.analysis.images.closeness", fail)
        result = hlvae(*metrics)
        assert "Traceback" not in caplog.text
        debugged = hlvae("--debug", *metrics)
    assert result.exit_code == 1
    assert cells(result)["samples"][-1] == "– (unexpected FloatingPointError: a number is lost)"
    assert {"mig", "sap"} <= cells(result).keys()
    assert result.stderr.splitlines()[-1] == "Error: samples: unexpected FloatingPointError: a number is lost"
    assert "Traceback" not in result.output
    assert "in fail\n" in caplog.text
    assert set(json.loads((run / "metrics.json").read_text())) == {"mig", "sap"}
    assert debugged.exit_code == 1
    assert hlvae(*metrics).exit_code == 0


def test_only_scores_with_numbers_are_explained(run, monkeypatch):
    """A table of failures alone has no legend, and no settings either."""
    with monkeypatch.context() as patch:
        patch.setattr("hierarchical_lvae.analysis.images.closeness", fail)
        some = hlvae("evaluate", run, "--metrics", "mig,samples", *FEW)
        none = hlvae("evaluate", run, "--metrics", "samples", *FEW)
    assert some.exit_code == none.exit_code == 1
    assert some.stdout.split("\n\n")[2].splitlines() == [
        "codes: local · points: 60 for fitting, 30 for testing · seed 0",
        *notes(["mig"]),
    ]
    assert none.stdout.count("\n\n") == 1
    assert none.stdout.endswith("\nsamples  – (unexpected FloatingPointError: a number is lost)\n")
    both = hlvae("evaluate", run, "--metrics", "samples,mig", *FEW)
    assert both.stdout.splitlines()[-2:] == notes(["mig", "samples"])


def test_a_bad_run_leaves_the_table_of_the_others(run, tmp_path):
    broken = shutil.copytree(run, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"torn")
    other = shutil.copytree(run, tmp_path / "elsewhere" / "run")
    args = ["evaluate", run, "--metrics", "mig", *FEW]
    result = hlvae(*args, "--against", broken, "--against", tmp_path / "nowhere", "--against", other)
    assert result.exit_code == 1
    header = result.stdout.split("\n\n")[1].splitlines()[0]
    assert header.split() == [str(run), str(other)]  # both are called "run"
    assert cells(result)["mig"][-1] == cells(hlvae(*args))["mig"][-1]
    first, second = (line for line in result.stderr.splitlines() if line.startswith("Skipped: "))
    last = result.stderr.splitlines()[-1]
    assert first.startswith(f"Skipped: {broken}/model.safetensors is damaged")
    assert second.startswith(f"Skipped: {tmp_path}/nowhere is not a run directory")
    assert last == f"Error: {first.removeprefix('Skipped: ')}; {second.removeprefix('Skipped: ')}"
    alone = hlvae("evaluate", tmp_path / "nowhere", *args[2:])
    assert alone.exit_code == 1
    assert alone.output.startswith(f"Error: {tmp_path}/nowhere is not a run directory")
    assert len(alone.output.splitlines()) == 1


@pytest.mark.parametrize(("number", "code"), [(errno.EROFS, 0), (errno.EACCES, 0), (errno.ENOSPC, 1)])
def test_scores_are_printed_where_nothing_can_be_saved(run, monkeypatch, caplog, number, code):
    def refuse(path, *_):
        raise explained(path, OSError(number, "of the disk"))

    monkeypatch.setattr("hierarchical_lvae.analysis.store.write_json", refuse)
    monkeypatch.setattr("hierarchical_lvae.presentation.figures.save", lambda _, out, name: refuse(out / name))
    result = hlvae("evaluate", run, "--metrics", "mig,dci", *FEW)
    assert result.exit_code == code
    assert {"mig", "dci completeness"} <= cells(result).keys()
    assert f"scores are not saved: {run}/metrics.json cannot be written (of the disk)" in caplog.text
    assert code == 0 or "metrics.json cannot be written (of the disk): free up space" in result.stderr.splitlines()[-1]
    assert not (run / "metrics.json").exists()


def test_a_file_that_may_not_be_read_is_a_failure(run, monkeypatch):
    """And not a read-only place, although the system gives the same error."""

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied", "metrics.json")

    monkeypatch.setattr("hierarchical_lvae.analysis.store.read_json", refuse)
    (run / "metrics.json").write_text("{}")
    result = hlvae("evaluate", run, "--metrics", "mig", *FEW)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "Error: metrics.json: Permission denied"


def test_a_damaged_table_is_left_as_it_is(run):
    (run / "metrics.json").write_text("{")
    result = hlvae("evaluate", run, "--metrics", "mig", *FEW)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(f"Error: {run}/metrics.json is not a JSON object")
    assert (run / "metrics.json").read_text() == "{"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--points", "0", "0"], "0 is not in the range x>=1"),
        (["--seed", "-1"], "-1 is not in the range"),
        (["--seed", str(2**32)], "is not in the range"),
    ],
)
def test_numbers_out_of_range_are_wrong_usage(run, args, message):
    result = hlvae("evaluate", run, *args)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_method_that_fails_is_named_and_leaves_the_others(run, monkeypatch):
    monkeypatch.setattr("hierarchical_lvae.analysis.measure.estimate_evidence", fail)
    few = ["--neighbourhoods", "2", "--draws", "50", "--local", "one-step,shared,laplace"]
    result = hlvae("compare", run, *few)
    assert result.exit_code == 1
    why = "unexpected FloatingPointError: a number is lost"
    assert f"laplace: – ({why})" in result.stdout.splitlines()
    assert result.stderr.splitlines()[-1] == f"Error: laplace: {why}"
    rows = (run / "compare.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[1] for row in rows[1:]] == ["one-step", "shared"]


def test_the_points_of_each_part_are_counted(run, monkeypatch):
    """Parts with fewer images than points are split in the same proportion."""
    whole = load_run(run)
    data = whole.dataset
    ends = {"cars": (0, 60), "toys": (60, 90)}
    parts = [Part(name, a, b, data.factors[a:b], data.factor_names, data.factor_sizes) for name, (a, b) in ends.items()]
    union = replace(whole, dataset=replace(data, parts=tuple(parts)))
    monkeypatch.setattr("hierarchical_lvae.runs.load_run", lambda *_: union)
    result = hlvae("evaluate", run, "--metrics", "mig", *FEW)
    assert (
        "points: 40 for fitting, 20 for testing (cars); 20 for fitting, 10 for testing (toys) · seed 0" in result.stdout
    )
