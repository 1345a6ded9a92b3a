"""The command line as a person meets it: what it prints, what it leaves, how it fails."""

import os
import subprocess
import sys
from dataclasses import fields

import pytest
from click.testing import CliRunner

from hierarchical_lvae.cli import main
from hierarchical_lvae.cli.fit import fit

FIT = ["fit", "--dataset", "digits", "--preset", "quick", "--steps", "3", "-B", "2", "-K", "2", "--device", "cpu"]


def hlvae(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_fit_trains_and_draws_figure_3(tmp_path):
    out = tmp_path / "run"
    result = hlvae(*FIT, "--out", out)
    assert result.exit_code == 0, result.output
    assert "handwritten digits" in result.output
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {"options.json", "log.jsonl", "model.safetensors", "figures/figure3.png"}
    assert (out / "figures/figure3.png").read_bytes().startswith(b"\x89PNG")


def test_the_default_directory_tells_what_was_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hlvae(*FIT, "--alpha", "0.5", "--seed", "7").exit_code == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("digits-0.5-7-")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["fti"], 2, "did you mean 'fit'?"),
        (["fit"], 2, "Missing option '--dataset'"),
        (["fit", "--dataset", "digit"], 2, "did you mean 'digits'?"),
        (["fit", "--dataset", "digits", "--local", "one-stop"], 2, "did you mean 'one-step'?"),
        (["fit", "--dataset", "digits", "--neighbourhood", "noize"], 2, "did you mean 'noise'?"),
        (["fit", "--dataset", "digits", "--likelihood", "x"], 2, "there are bernoulli, gaussian"),
        (["fit", "--dataset", "digits", "-K", "0"], 2, "0 is not in the range x>=1"),
        (["fit", "--dataset", "digits", "-B", "0"], 2, "0 is not in the range x>=1"),
        ([*FIT, "--alpha", "-1"], 1, "alpha is -1.0: it must be finite and not negative"),
        ([*FIT, "--alpha", "nan"], 1, "alpha is nan"),
        ([*FIT, "--data-dir", "/nowhere/at/all"], 1, "does not exist"),
        ([*FIT, "--device", "abacus"], 1, "try --device cpu"),
        (
            [*FIT, "--steps", "300", "--alpha", "1e6", "--lr", "0.1", "--clip", "1e9"],
            3,
            "the fit diverged: the loss is",
        ),
    ],
)
def test_failures_are_one_line_and_a_code(args, code, message, tmp_path):
    out = tmp_path / "run"
    result = hlvae(*args, *(["--out", out] if args[0] == "fit" and code != 2 else []))
    assert result.exit_code == code, result.output
    error = result.stderr.splitlines()[-1]
    lines = [line for line in result.stderr.split("\n") if line and "step/s" not in line and "?step" not in line]
    assert code == 2 or len(lines) == 1, lines
    assert error.startswith("Error: ")
    assert message in error
    assert "Traceback" not in result.output
    assert code == 3 or not out.exists()


def test_defaults_are_those_of_the_python_api():
    from hierarchical_lvae.training import FitOptions

    defaults = {field.name: field.default for field in fields(FitOptions)}
    given = {option.name: option.default for option in fit.params}
    for name in ("alpha", "beta", "latent_dim", "likelihood", "activation", "neighbourhood", "seed"):
        assert given[name] == defaults[name], name


def test_debug_shows_the_traceback():
    result = hlvae("--debug", *FIT, "--alpha", "-1")
    assert isinstance(result.exception, ValueError)


def test_an_interrupt_exits_130(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("hierarchical_lvae.training.fit", interrupt)
    assert hlvae(*FIT, "--out", tmp_path / "run").exit_code == 130


def test_help_is_answered_without_loading_torch():
    code = "import sys; from hierarchical_lvae.cli import main; main(['fit', '--help'], standalone_mode=False); "
    code += "print('loaded:', sorted({'torch', 'pyro', 'numpy', 'matplotlib'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "loaded: []"


def test_python_m_is_the_same_program():
    command = [sys.executable, "-m", "hierarchical_lvae", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, check=True)
    assert result.stdout.startswith("hlvae, version ")
