"""`hlvae reproduce --dry-run` prints commands that would give the very runs."""

import json
import shlex
from dataclasses import asdict, replace

import pytest
from click.testing import CliRunner

from hierarchical_lvae.analysis import ScoreSettings
from hierarchical_lvae.cli import main
from hierarchical_lvae.cli.fit import fit as fit_command
from hierarchical_lvae.cli.fit import resolve
from hierarchical_lvae.experiments import FIGURES, TABLES, plan
from hierarchical_lvae.experiments.rows import fit_options
from hierarchical_lvae.training import fit


def parsed(line):
    """The options of a `hlvae fit` as it is typed, on any device."""
    program, verb, *words = shlex.split(line)
    assert (program, verb) == ("hlvae", "fit")
    given = fit_command.make_context("fit", words, resilient_parsing=True).params
    options = resolve(**{key: given[key] for key in given if key not in ("out", "checkpoint_every", "resume")})
    return given["out"], options


@pytest.mark.parametrize("preset", ["quick", "paper"])
@pytest.mark.parametrize("name", TABLES)
def test_each_command_gives_the_options_of_its_row(name, preset, tmp_path):
    table = TABLES[name]
    settings = ScoreSettings(train=300, test=200, images=50)
    lines = [*plan(table, tmp_path, preset, (0, 3), settings=settings, steps=700)]
    fits, scores = lines[::2], lines[1::2]
    expected = [(row, seed) for row in table.rows for seed in (0, 3)]
    assert len(fits) == len(scores) == len(expected)
    for line, scored, (row, seed) in zip(fits, scores, expected, strict=True):
        path = tmp_path / f"{row.name}-{seed}"
        options = fit_options(table, row, preset, {"seed": seed, "steps": 700})
        out, found = parsed(line)
        assert (out, replace(found, device="cpu")) == (path, options)
        assert scored == f"hlvae evaluate {path} --metrics {','.join(table.metrics)} --points 300 200 --images 50"


def test_what_is_there_is_resumed_or_left(tmp_path):
    table = replace(TABLES["table1"], options={"dataset": "digits"}, rows=TABLES["table1"].rows[:2])
    row = table.rows[0]
    path = tmp_path / f"{row.name}-0"
    fit(fit_options(table, row, "quick", {"seed": 0, "steps": 2, "batch": 2}), path)

    def first(steps):
        return next(plan(table, tmp_path, "quick", steps=steps, batch=2))

    assert first(2).startswith(f"hlvae evaluate {path}")
    assert first(1).startswith(f"hlvae evaluate {path}")
    assert first(3) == f"hlvae fit --resume {path} --steps 3"
    (path / "state.json").write_text('{"status": "interrupted", "step": 1, "steps": 2, "why": ""}')
    assert first(2) == f"hlvae fit --resume {path}"
    assert first(3) == f"hlvae fit --resume {path} --steps 3"


@pytest.mark.parametrize(
    ("name", "status", "remedy"), [("fig4", "finished", "draw the figure"), ("table2", "diverged", "print the table")]
)
def test_the_command_line_says_that_nothing_is_to_be_run(tmp_path, name, status, remedy):
    """On stderr: stdout holds nothing but commands."""
    figure = FIGURES.get(name)
    table = TABLES[figure.table if figure else name]
    for row in table.rows if figure is None else [row for row in table.rows if row.name in figure.rows]:
        out = tmp_path / f"{row.name}-0"
        out.mkdir()
        options = fit_options(table, row, "quick", {"seed": 0})
        (out / "options.json").write_text(json.dumps(asdict(options)))
        (out / "state.json").write_text(json.dumps({"status": status, "step": options.steps, "steps": options.steps}))
    command = ["reproduce", name, "--dry-run", "--device", "cpu", "--out", str(tmp_path)]
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == (
        f"nothing to run: all requested runs in {tmp_path} have finished or diverged; "
        f"give --print-only instead of --dry-run to {remedy}\n"
    )
    (out / "options.json").unlink()  # of the last row
    partly = CliRunner().invoke(main, command)
    assert partly.stdout.startswith("hlvae fit --dataset ")
    assert {word for line in partly.stdout.splitlines() for word in line.split() if str(tmp_path) in word} == {str(out)}
    assert partly.stderr == ""


def test_the_command_line_prints_them_and_makes_nothing(tmp_path):
    out = tmp_path / "out"
    for name in (*TABLES, *FIGURES):
        result = CliRunner().invoke(main, ["reproduce", name, "--dry-run", "--device", "cpu", "--out", str(out)])
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("hlvae fit --dataset ")
    assert not out.exists()
    both = CliRunner().invoke(main, ["reproduce", "table1", "--dry-run", "--print-only", "--out", str(out)])
    assert both.exit_code == 2
    assert "--dry-run prints commands and --print-only a table: give only one of them" in both.stderr
