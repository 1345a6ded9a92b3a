"""The runs that the package ships: they load, show what they are said to show, and are never written to."""

import logging
import shlex
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from hierarchical_lvae.analysis import ScoreSettings, score
from hierarchical_lvae.cli import main
from hierarchical_lvae.cli.fit import fit, resolve
from hierarchical_lvae.data import FactorImages, load_dataset
from hierarchical_lvae.data.factor_images import factor_grid
from hierarchical_lvae.data.shapes3d import FACTOR_NAMES, FACTOR_SIZES
from hierarchical_lvae.presentation import figures
from hierarchical_lvae.presentation.report import write_report
from hierarchical_lvae.runs import PRETRAINED, copy_pretrained, load_run, prepare, read_options
from hierarchical_lvae.runs.directory import read_log, read_record, read_state, read_weights
from hierarchical_lvae.runs.pretrained import PLACE, located
from hierarchical_lvae.training import resume

LOCAL = "pretrained:3dshapes-local"
FILES = {"log.jsonl", "model.safetensors", "options.json", "state.json"}
REFUSED = "is part of the package and read-only: copy it with `copy_pretrained"


def hlvae(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def shipped():
    return {path: path.read_bytes() for path in PLACE.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def untouched(tmp_path, monkeypatch):
    """Work in a directory of the test's own; at its end the package holds what it held."""
    monkeypatch.chdir(tmp_path)
    before = shipped()
    yield
    assert shipped() == before


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A data directory with the rendered replica."""
    directory = tmp_path_factory.mktemp("data")
    load_dataset("3dshapes", directory)
    return directory


@pytest.fixture
def data(rendered, monkeypatch):
    monkeypatch.setenv("HLVAE_DATA", str(rendered))
    return rendered


class TestFiles:
    def test_the_table_and_the_directories_agree(self):
        assert {path.name for path in PLACE.iterdir()} == set(PRETRAINED)
        for name in PRETRAINED:
            assert {path.name for path in (PLACE / name).iterdir()} == FILES

    @pytest.mark.parametrize("name", PRETRAINED)
    def test_the_command_gives_the_options(self, name):
        what, command = PRETRAINED[name]
        program, verb, *words = shlex.split(command)
        assert (program, verb) == ("hlvae", "fit")
        given = fit.make_context("fit", words, resilient_parsing=True).params  # no device is looked for
        options = resolve(**{key: given[key] for key in given if key not in ("out", "checkpoint_every", "resume")})
        saved = read_options(f"pretrained:{name}")
        assert saved == replace(options, device="cpu")  # anywhere
        assert ("H100" in what) == (given["device"] == "cuda")
        record = read_record(f"pretrained:{name}")
        assert record["preset"] == saved.preset  # a report says what a figure says
        assert read_state(PLACE / name) == ("finished", saved.steps, saved.steps, "")
        assert read_log(PLACE / name)[-1]["step"] == saved.steps

    @pytest.mark.parametrize("name", PRETRAINED)
    def test_the_weights_fit_the_model_and_are_finite(self, name):
        images = torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8)
        factors = factor_grid(FACTOR_SIZES)[[0, 1, 2, 3]]
        run = prepare(read_options(PLACE / name), FactorImages(images, factors, FACTOR_NAMES, FACTOR_SIZES, "noise"))
        weights = read_weights(PLACE / name)
        run.vae.load_state_dict(weights)
        assert all(tensor.isfinite().all() for tensor in weights.values())
        index = torch.arange(4)
        x = run.dataset.batch(index)
        x_N = run.neighbourhood(index, x)
        codes = run.encode(x, x_N)
        assert codes.shape == (4, run.options.latent_dim)
        size = run.options.image_size
        assert run.decode(codes.unsqueeze(1), x_N).shape == (4, 1, 3, size, size)
        assert codes.isfinite().all()


class TestUse:
    @pytest.mark.parametrize("name", PRETRAINED)
    def test_floors_follow_the_weights_or_in_the_plain_vae_the_code(self, name, data, caplog):
        run = load_run(f"pretrained:{name}")
        assert not caplog.messages  # no line on a missing GPU or missing data
        index = torch.from_numpy(np.random.default_rng(0).integers(len(run.dataset), size=24))
        x = run.dataset.batch(index)
        x_N = run.neighbourhood(index, x)
        pictures = run.decode(run.encode(x, x_N).roll(1, 0).unsqueeze(1), x_N).squeeze(1)  # codes of their neighbours
        floors, mine = (images[:, :, -3:].mean((2, 3)) for images in (pictures, x))
        of_weights, of_code = ((floors - colour).norm(dim=1) for colour in (mine, mine.roll(1, 0)))
        differ = (mine - mine.roll(1, 0)).norm(dim=1) > 0.1
        assert differ.sum() > 15
        follow = (of_weights < of_code)[differ].float().mean()
        assert follow < 0.05 if run.options.alpha == 0 else follow > 0.95

    def test_the_figure_is_drawn_and_nothing_is_written(self, data, tmp_path):
        run = load_run(LOCAL)
        assert figures.draw_figure3(run).axes
        for write in (lambda: figures.draw_all(run), lambda: list(score(run, ["mig"])), lambda: write_report(LOCAL)):
            with pytest.raises(ValueError, match=REFUSED):
                write()
        assert list(tmp_path.iterdir()) == []

    def test_the_replica_is_used_even_if_the_real_images_are_there(self, data, caplog):
        real = data / "3dshapes.h5"
        real.write_bytes(b"of no interest")
        try:
            with caplog.at_level(logging.INFO):
                assert "replica" in load_run(LOCAL).dataset.source
        finally:
            real.unlink()
        (message,) = caplog.messages
        assert message.endswith(f"was trained on the replica: ignoring {real}")

    def test_commands_write_into_a_copy(self, data, tmp_path, monkeypatch):
        monkeypatch.setattr("hierarchical_lvae.presentation.figures.draw_all", lambda run, seed: [run.directory])
        result = hlvae("figures", LOCAL)
        assert result.exit_code == 0, result.output
        assert result.stdout == "runs/3dshapes-local\n"
        for _ in range(2):
            result = hlvae("evaluate", LOCAL, "--metrics", "mig", "--points", "40", "20")
            assert result.exit_code == 0, result.output
        assert (tmp_path / "runs/3dshapes-local/metrics.json").is_file()
        assert {path.name for path in (tmp_path / "runs/3dshapes-local").iterdir()} > FILES
        settings = ScoreSettings(train=40, test=20)
        again = dict(score(load_run("runs/3dshapes-local"), ["mig"], settings))
        assert "failed" not in again["mig"]

    def test_the_list_names_them(self):
        lines = hlvae("data", "list").stdout.splitlines()
        for name, (what, command) in PRETRAINED.items():
            at = lines.index(f"pretrained:{name}")
            assert [line.strip() for line in lines[at + 1 : at + 3]] == [what, command]


class TestCopies:
    def test_a_copy_is_whole_and_kept(self, caplog):
        with caplog.at_level(logging.INFO):
            out = copy_pretrained("3dshapes-plain")
        assert str(out) == "runs/3dshapes-plain"
        assert PRETRAINED["3dshapes-plain"][1] in caplog.text
        assert all((out / file).read_bytes() == (PLACE / "3dshapes-plain" / file).read_bytes() for file in FILES)
        (out / "metrics.json").write_text("{}")
        (out / "state.json").unlink()  # as if the first copy had been interrupted
        assert copy_pretrained("3dshapes-plain") == out
        assert {path.name for path in out.iterdir()} == {*FILES, "metrics.json"}

    def test_what_is_not_a_copy_is_left_alone(self, tmp_path):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/notes.txt").write_text("mine")
        with pytest.raises(FileExistsError, match=r"mine holds something other than pretrained:.*\(notes\.txt\)"):
            copy_pretrained("3dshapes-local", tmp_path / "mine")
        copy_pretrained("3dshapes-local", str(tmp_path / "first"))
        with pytest.raises(FileExistsError, match="holds something other than pretrained:3dshapes-plain"):
            copy_pretrained("3dshapes-plain", tmp_path / "first")
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]

    @pytest.mark.parametrize("out", [LOCAL, PLACE, PLACE / "new", PLACE / "3dshapes-local"])
    def test_no_copy_goes_into_the_package(self, out):
        with pytest.raises(ValueError, match=REFUSED):
            copy_pretrained("3dshapes-local", out)


class TestRefusals:
    @pytest.mark.parametrize("use", [load_run, read_options, located, copy_pretrained, resume, write_report])
    def test_an_unknown_name_is_answered_with_the_nearest(self, use):
        name = "3dshapes-lokal" if use is copy_pretrained else "pretrained:3dshapes-lokal"
        with pytest.raises(
            ValueError, match=r"^no pretrained run is called '3dshapes-lokal': did you mean '3dshapes-l"
        ):
            use(name)

    @pytest.mark.parametrize("command", ["figures", "report", "evaluate", "compare"])
    def test_commands_say_so_too(self, command, tmp_path):
        result = hlvae(command, "pretrained:none", *(["--metrics", "mig"] if command == "evaluate" else []))
        assert result.exit_code == 1
        assert "no pretrained run is called 'none': choose from 3dshapes-local, " in result.stderr
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("place", [LOCAL, PLACE / "3dshapes-local"])
    def test_none_is_trained_further(self, place, tmp_path):
        with pytest.raises(ValueError, match=REFUSED):
            resume(place, steps=5001)
        for words in (["--resume", place], ["--dataset", "digits", "--out", place]):
            result = hlvae("fit", *words)
            assert result.exit_code == 1
            assert REFUSED in result.stderr
            assert PRETRAINED["3dshapes-local"][1] in result.stderr
        assert list(tmp_path.iterdir()) == []
