"""The command line as a person meets it: what it prints, and what it leaves."""

import json
import os
import subprocess
import sys
from dataclasses import fields
from types import SimpleNamespace

from click.testing import CliRunner

from hierarchical_lvae.cli import main
from hierarchical_lvae.cli.fit import fit
from hierarchical_lvae.cli.names import PenaltyName
from hierarchical_lvae.data import DATASETS
from hierarchical_lvae.penalties import PENALTIES

FIT = ["fit", "--dataset", "digits", "--preset", "quick", "--steps", "3", "-B", "2", "-K", "2", "--device", "cpu"]


def hlvae(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_fit_trains_and_draws_figure_3(tmp_path):
    out = tmp_path / "run"
    result = hlvae(*FIT, "--out", out)
    assert result.exit_code == 0, result.output
    assert "handwritten digits" in result.output
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    names = ("figure2", "figure3", "figure4", "training", "reconstructions")
    run_files = {"options.json", "log.jsonl", "model.safetensors", "state.safetensors", "state.json", ".hlvae.lock"}
    assert files == run_files | {f"figures/{name}.png" for name in names}
    assert (out / "figures/figure3.png").read_bytes().startswith(b"\x89PNG")
    assert "preset paper: about" in result.output
    assert "preset quick: about" in result.output
    figure = (out / "figures/figure2.png").read_bytes()
    assert hlvae("figures", out, "--seed", "1").exit_code == 0
    assert (out / "figures/figure2.png").read_bytes() != figure
    assert hlvae("figures", out).exit_code == 0
    assert (out / "figures/figure2.png").read_bytes() == figure


def test_the_end_of_a_fit_counts_its_skipped_steps_if_there_are_any(tmp_path):
    log = tmp_path / "run/log.jsonl"
    assert "skipped" not in hlvae(*FIT, "--out", tmp_path / "run").output
    log.write_text(json.dumps({**json.loads(log.read_text()), "skipped": 2}) + "\n")
    result = hlvae("fit", "--resume", tmp_path / "run", "--steps", "5")
    assert "skipped 2 of 5 steps: loss or gradient not finite" in result.stdout.splitlines()


def test_resume_needs_no_other_option_and_refuses_contradictions(tmp_path, caplog):
    out = tmp_path / "run"
    assert hlvae(*FIT, "--out", out).exit_code == 0
    assert "nothing to train" not in caplog.text
    assert hlvae("fit", "--resume", out).exit_code == 0
    assert "nothing to train: all 3 steps are done; to train further, give more `steps`" in caplog.text
    before = (out / "state.json").read_bytes()
    for args, message in (
        (["--alpha", "0.5"], "--alpha 0.5 contradicts"),
        (["-K", "3"], "-K 3 contradicts"),
        (["--dataset", "3dshapes"], "--dataset 3dshapes contradicts"),
        (["--out", tmp_path / "other"], "--out contradicts --resume"),
    ):
        result = hlvae("fit", "--resume", out, *args)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
    assert (out / "state.json").read_bytes() == before
    assert hlvae("fit", "--resume", out, "--steps", "2").exit_code == 1
    assert hlvae("fit", "--resume", out, "--steps", "5", "--alpha", "1", "-K", "2").exit_code == 0
    assert '"step": 5' in (out / "state.json").read_text()


def test_a_penalty_is_told_kept_and_not_contradicted(tmp_path, monkeypatch):
    monkeypatch.setattr("hierarchical_lvae.presentation.figures.draw_all", lambda run: [])
    out = tmp_path / "run"
    result = hlvae(*FIT, "--penalty", "tc", "--out", out)
    assert result.exit_code == 0, result.output
    assert "bernoulli, penalty tc:4.0, preset quick" in result.output
    assert json.loads((out / "options.json").read_text())["penalty"] == "tc:4.0"
    assert hlvae("fit", "--resume", out, "--penalty", "tc:4").exit_code == 0
    result = hlvae("fit", "--resume", out, "--penalty", "tc:5")
    assert result.exit_code == 2
    assert "--penalty tc:5.0 contradicts" in result.stderr
    names = [item.value for item in PenaltyName(PENALTIES).shell_complete(None, None, "dip")]
    assert names == ["dip-i", "dip-ii"]


def test_compare_prints_tables_and_leaves_figures_and_draws(tmp_path):
    import arviz

    out = tmp_path / "run"
    assert hlvae(*FIT, "--out", out).exit_code == 0
    few = [
        "--neighbourhoods",
        "2",
        "--reference",
        "1",
        "--draws",
        "50",
        "--local",
        "one-step,laplace,laplace-block,nuts",
    ]
    result = hlvae("compare", out, *few)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[3] == "All local weights (neighbourhoods: 2)"
    assert " ".join(lines[4].split()) == "method random held-out gain ± evidence calibration coverage k̂ LOO cost"
    assert [line.split()[0] for line in lines[5:7]] == ["one-step", "laplace"]
    assert "The block 5.bias, the other weights at the one-step estimate (neighbourhoods: 1)" in lines
    for name in ("deviation", "draws", "forest", "density"):
        assert (out / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
    table = (out / "compare.csv").read_text().splitlines()
    assert table[0].startswith("part,method,random_parameters,held_out,gain")
    assert len(table) == 1 + 2 + 3
    data = arviz.from_netcdf(out / "posterior.nc")
    assert data["posterior"]["theta_N"].sizes["inference"] == 2
    assert data["posterior"]["z"].dims == ("chain", "draw", "inference", "neighbourhood", "point", "latent")


def test_compare_refuses_what_it_cannot_compare(tmp_path):
    assert hlvae(*FIT, "--alpha", "0", "--out", tmp_path / "plain").exit_code == 0
    for args, code, message in (
        ([tmp_path / "plain"], 1, "this run has α = 0: its weights are not local"),
        ([tmp_path / "plain", "--local", "one-step,laplas"], 2, "'laplas' is unknown: did you mean 'laplace'?"),
        ([tmp_path / "nowhere"], 1, "is not a run directory"),
    ):
        result = hlvae("compare", *args)
        assert result.exit_code == code, result.output
        assert message in result.stderr.splitlines()[-1]
    assert not (tmp_path / "plain/compare.csv").exists()


def test_evaluate_prints_a_table_and_sets_runs_side_by_side(tmp_path, monkeypatch):
    for name, alpha in (("local", "0.1"), ("plain", "0")):
        assert hlvae(*FIT, "--alpha", alpha, "--out", tmp_path / name).exit_code == 0
    monkeypatch.setenv("HLVAE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("hierarchical_lvae.evaluation.factor_classifier.STEPS", 5)
    few = ["--metrics", "mig,dci,fid,samples,iwae", "--points", "150", "60", "--draws", "5"]
    few += ["--images", "10", "--features", "factors"]
    result = hlvae("evaluate", tmp_path / "local", "--against", tmp_path / "plain", *few)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert ["local", "plain"] in [line.split() for line in lines]
    rows = {line[:28].strip() for line in lines}
    assert {"mig", "dci completeness", "dci informativeness test", "active units"} <= rows
    assert "dci disentanglement" not in rows  # digits have one factor
    assert {"FD-factors", "recall of FD-factors", "samples to nearest"} <= rows
    assert "FID" not in rows
    for name in ("local", "plain"):
        assert (tmp_path / name / "figures/importance-local.png").read_bytes().startswith(b"\x89PNG")
        assert set(json.loads((tmp_path / name / "metrics.json").read_text())) == {
            "mig",
            "dci",
            "fid",
            "samples",
            "iwae",
        }


def test_evaluate_refuses_in_one_line(tmp_path):
    assert hlvae(*FIT, "--out", tmp_path / "run").exit_code == 0
    few = ["--metrics", "mig", "--points", "60", "30"]
    assert hlvae("evaluate", tmp_path / "run", *few).exit_code == 0
    before = (tmp_path / "run/metrics.json").read_bytes()
    weights = tmp_path / "run/model.safetensors"
    (tmp_path / "truncated").mkdir()
    for file in ("options.json", "model.safetensors"):
        content = (tmp_path / "run" / file).read_bytes()
        (tmp_path / "truncated" / file).write_bytes(content[: len(content) // (2 if file.startswith("m") else 1)])
    for args, code, message in (
        ([tmp_path / "nowhere"], 1, "is not a run directory"),
        ([tmp_path / "truncated"], 1, "model.safetensors"),
        ([tmp_path / "run", "--metrics", "mgi"], 2, "'mgi' is unknown: did you mean 'mig'?"),
        ([tmp_path / "run", "--codes", "locale"], 2, "did you mean 'local'?"),
        ([tmp_path / "run", "--features", "factor"], 2, "did you mean 'factors'?"),
        ([tmp_path / "run", "--metrics", "fid", "--inception-weights", tmp_path / "no.pth"], 1, "no.pth is not a file"),
        ([tmp_path / "run", "--metrics", "fid", "--inception-weights", weights], 1, "does not contain the weights"),
        ([tmp_path / "run", *few, "--against", tmp_path / "nowhere"], 1, "is not a run directory"),
    ):
        result = hlvae("evaluate", *args)
        assert result.exit_code == code, result.output
        assert message in result.stderr.splitlines()[-1]
        assert "unexpected" not in result.stderr
    assert (tmp_path / "run/metrics.json").read_bytes() == before


def test_data_commands(tmp_path):
    assert hlvae("data", "list").output.split("\n\n")[0].split() == list(DATASETS)
    result = hlvae("data", "info", "digits")
    assert "1,797 of 8 × 8 pixels, 1 channel, uint8" in result.output
    assert "digit 10" in result.output
    result = hlvae("data", "download", "digits", "--data-dir", tmp_path)
    assert result.exit_code == 1
    assert "needs no download" in result.stderr


def test_the_log_goes_to_tensorboard_where_it_is_installed(tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, directory):
            written.append(directory)

        def add_scalar(self, name, value, step):
            written.append((name, step))

        def flush(self):
            pass

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
    assert hlvae(*FIT, "--out", tmp_path / "run").exit_code == 0
    assert written == [
        str(tmp_path / "run/tensorboard"), ("loss", 3), ("gradient_norm", 3), ("images_per_second", 3)
    ]  # fmt: skip


def test_the_default_directory_tells_what_was_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hlvae(*FIT, "--alpha", "0.5", "--seed", "7").exit_code == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("digits-0.5-7-")


def test_defaults_are_those_of_the_python_api():
    from hierarchical_lvae.runs import FitOptions

    defaults = {field.name: field.default for field in fields(FitOptions)}
    given = {option.name: option.default for option in fit.params}
    for name in ("latent_dim", "likelihood", "activation", "refresh", "frame", "seed"):
        assert given[name] == defaults[name], name


def test_help_is_answered_without_loading_torch():
    code = "import sys; from hierarchical_lvae.cli import main; main(['fit', '--help'], standalone_mode=False); "
    code += "print('loaded:', sorted({'torch', 'pyro', 'numpy', 'matplotlib'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "loaded: []"


def test_python_m_is_the_same_program():
    command = [sys.executable, "-m", "hierarchical_lvae", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, check=True)
    assert result.stdout.startswith("hlvae, version ")
