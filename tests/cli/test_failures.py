"""How the command line fails: in one line that names cause and remedy, and with a code."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import hierarchical_lvae
from hierarchical_lvae.cli import main
from hierarchical_lvae.cli.failures import in_flags
from hierarchical_lvae.types import Interrupted

FIT = ["fit", "--dataset", "digits", "--preset", "quick", "--steps", "3", "-B", "2", "-K", "2", "--device", "cpu"]
EMPTY = "has an empty name: give one or more names, separated by single commas"


def hlvae(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["fti"], 2, "did you mean 'fit'?"),
        (["fit"], 2, "Missing option '--dataset'"),
        (["fit", "--dataset", "digit"], 2, "did you mean 'digits'?"),
        (["fit", "--dataset", "digits", "--local", "one-stop"], 2, "did you mean 'one-step'?"),
        (["fit", "--dataset", "digits", "--neighbourhood", "noize"], 2, "did you mean 'noise'?"),
        (["fit", "--dataset", "digits", "--likelihood", "x"], 2, "choose from bernoulli, gaussian"),
        (["fit", "--dataset", "digits", "-K", "0"], 2, "0 is not in the range x>=1"),
        (["fit", "--dataset", "digits", "-B", "0"], 2, "0 is not in the range x>=1"),
        ([*FIT, "--penalty", "dip-iii"], 2, "'dip-iii' is unknown: did you mean 'dip-ii'?"),
        ([*FIT, "--penalty", "tc:x"], 2, "the weight of the penalty tc is 'x': give a finite number"),
        ([*FIT, "--penalty", "tc:"], 2, "the weight of the penalty tc is '': give a finite number"),
        ([*FIT, "--penalty", "tc:4:"], 2, "that is not negative, such as tc:4"),
        ([*FIT, "--penalty", "factor:-1"], 2, "that is not negative, such as factor:30"),
        ([*FIT, "--penalty", "annealed:inf"], 2, "that is not negative, such as annealed:25"),
        (
            [*FIT, "--penalty", "tc", "--micro-batch", "1"],
            2,
            "the penalty tc:4.0 needs the codes of a whole batch",
        ),
        (
            [*FIT, "--refresh", "5", "--neighbourhood", "noise"],
            2,
            "--refresh has no effect on --neighbourhood noise, only on latent-knn: leave it out, or choose latent-knn",
        ),
        ([*FIT, "--index", "Flat"], 2, "--index has no effect on --neighbourhood latent-knn, only on input-knn"),
        ([*FIT, "--micro-batch", "3"], 2, "--micro-batch is 3, but a batch has 2 neighbourhoods: give at most 2"),
        ([*FIT, "--skip-bad"], 2, "--skip-bad has no effect on --dataset digits, only on your own images"),
        ([*FIT, "--frame", "pad"], 2, "--frame has no effect on --dataset digits, only on your own images"),
        ([*FIT, "--alpha", "-1"], 2, "alpha is -1.0: it must be finite and not negative"),
        ([*FIT, "--lr", "1e300"], 2, "lr is 1e+300: it must be finite and not negative (at most 3.4e+38)"),
        ([*FIT, "--alpha", "nan"], 2, "alpha is nan"),
        ([*FIT, "--alpha", "automatic"], 2, "'automatic' is neither a number nor auto"),
        ([*FIT, "--alpha", "0", "--local", "laplace"], 2, "leave out --local for the plain VAE, or give an --alpha"),
        ([*FIT, "--data-dir", "/nowhere/at/all"], 1, "does not exist"),
        (["fit", "--resume", "/nowhere/at/all"], 1, "/nowhere/at/all is not a run directory (it does not exist)"),
        (["figures", "/nowhere/at/all"], 1, "is not a run directory"),
        ([*FIT, "--local-layers", "head,"], 1, f"--local-layers 'head,' {EMPTY}"),
        ([*FIT, "--local-layers", "decoder.5.*,,head"], 1, f"--local-layers 'decoder.5.*,,head' {EMPTY}"),
        ([*FIT, "--neighbourhood", "labels:digit,"], 1, f"the list of factors 'digit,' {EMPTY}"),
        (["evaluate", "run", "--metrics", "dci,"], 2, f"'--metrics': the list 'dci,' {EMPTY}"),
        (["compare", "run", "--local", ",one-step"], 2, f"'--local': the list ',one-step' {EMPTY}"),
        (["compare", "run", "--block", "9.weight[:,0],"], 2, f"'--block': the list '9.weight[:,0],' {EMPTY}"),
        (["reproduce", "fig3", "--rows", "alpha-0", "--dry-run"], 2, "no row is called 'alpha-0': there are alpha-1"),
        (["reproduce", "table1", "--rows", ""], 2, f"'--rows': the list '' {EMPTY}"),
        (["reproduce", "table1", "--rows", "alpha-0, beta"], 2, "no row is called 'beta': there are alpha-0"),
        (["data", "describe"], 2, "no command is called 'describe': choose from list, info, download, render"),
        (["data", "infos"], 2, "no command is called 'infos': did you mean 'info'?"),
        (["data", "info", "digit"], 2, "did you mean 'digits'?"),
        ([*FIT, "--steps", "200", "--alpha-unit", "sum", "--alpha", "10000"], 3, "the fit diverged: the loss is"),
        ([*FIT, "--device", "abacus"], 2, "is not a device: give auto, cpu, cuda, cuda:1 or mps"),
        (
            [*FIT, "--steps", "300", "--alpha", "1e6", "--lr", "0.1", "--clip", "1e9"],
            3,
            "the fit diverged: the loss is",
        ),
    ],
)
def test_failures_are_one_line_and_a_code(args, code, message, tmp_path):
    out = tmp_path / "run"
    result = hlvae(*args, *(["--out", out] if args[:3] == FIT[:3] and code != 2 else []))
    assert result.exit_code == code, result.output
    error = result.stderr.splitlines()[-1]
    lines = [line for line in result.stderr.split("\n") if line and "step/s" not in line and "?step" not in line]
    assert code == 2 or len(lines) == 1, lines
    assert error.startswith("Error: ")
    assert message in error
    assert "Traceback" not in result.output
    assert code == 3 or not out.exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--neighbourhood", "graph:{0}/gone.npz"],
            "there is no graph {0}/gone.npz: give --neighbourhood as graph:FILE",
        ),
        (["--neighbourhood", "graph:{0}/few.npz"], "point 0 has 1 neighbours in {0}/few.npz, but K is 2"),
        (["--neighbourhood", "input-knn", "--index", "HNSWX"], "Faiss has no index 'HNSWX'"),
        (["--neighbourhood", "input-knn", "--index", "PCA0,Flat"], "the index PCA0,Flat has no components"),
        (
            ["--compiled", "--local", "laplace-low-rank"],
            "laplace-low-rank reads values on the host and cannot be compiled: leave out --compiled",
        ),
    ],
)
def test_what_a_fit_cannot_start_with_is_reported_before_the_estimates(args, message, tmp_path):
    np.savez(tmp_path / "few.npz", ids=np.arange(1, 1798)[:, None] % 1797)
    result = hlvae(*FIT, *(arg.format(tmp_path) for arg in args), "--data-dir", tmp_path, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert message.format(tmp_path) in result.stderr.splitlines()[-1]
    assert result.stdout == ""
    assert not (tmp_path / "run").exists()


def test_arguments_in_backticks_are_named_as_flags():
    text = "lower `num_neighbours`, leave `data_dir` out, or type `hlvae figures out`, not `batches`"
    assert in_flags(text) == text  # outside of the command line
    with main.make_context("hlvae", ["data", "list"]):
        assert in_flags(text) == "lower -K, leave --data-dir out, or type `hlvae figures out`, not `batches`"


def test_an_argument_has_one_flag_in_all_commands():
    found = {}
    for command in (*main.commands.values(), *main.commands["data"].commands.values()):
        for param in command.params:
            assert found.setdefault(param.name, param.opts[0]) == param.opts[0]


def test_the_library_names_no_flags_but_in_whole_commands():
    for path in Path(hierarchical_lvae.__file__).parent.rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines() if path.parent.name != "cli" else ():
            assert "lvae" in line or not re.search(r"[ (](--[a-z]|-[KB]\b)", line), f"{path}: {line}"


def test_debug_shows_the_traceback():
    result = hlvae("--debug", *FIT, "--data-dir", "/nowhere/at/all")
    assert isinstance(result.exception, FileNotFoundError)


def test_an_interrupted_table_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr("hierarchical_lvae.experiments.rows.fit", interrupt)  # before its first step
    result = hlvae("reproduce", "table5", "--rows", "none", "--steps", "1", "--out", tmp_path, "--jobs", "1")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "Error: interrupted: run the same command again to resume"


def test_an_interruption_passes_between_processes():
    """A worker whose error cannot be pickled takes the whole table with it."""
    error = pickle.loads(pickle.dumps(Interrupted(15, "stopped after step 6")))
    assert (type(error), error.signal, str(error)) == (Interrupted, 15, "stopped after step 6")


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("moment", "remedy"),
    [
        ("training.loop.prepare", "no step was completed and nothing was saved; run the same command again"),
        ("training.loop.truncate_log", "`hlvae fit --resume {out}` resumes the fit"),  # the run is begun, but not saved
        ("training.step.learning_rate", "`hlvae fit --resume {out}` resumes the fit"),
        ("presentation.figures.draw_all", "`hlvae figures {out}` draws the figures"),
    ],
)
def test_an_interrupt_exits_130_and_says_how_to_go_on(moment, remedy, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(f"hierarchical_lvae.{moment}", interrupt)
        result = hlvae(*FIT, "--out", out)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "Error: interrupted: " + remedy.format(out=out)
    does = remedy.format(out=out).split("`")[1].split()[1:] if "`" in remedy else [*FIT, "--out", out]
    assert hlvae(*does).exit_code == 0
    assert (out / "figures" / "figure3.png").exists()
