"""What `FitOptions` takes: values that are exact, and no preset that its contents contradict."""

import json
import math
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hierarchical_lvae.neighbourhoods import NEIGHBOURHOODS
from hierarchical_lvae.runs import FitOptions, load_run, prepare, read_options
from hierarchical_lvae.runs.options import PRESETS, TUNED
from hierarchical_lvae.training import fit, resume

SMALL = {"dataset": "digits", "batch": 2, "num_neighbours": 2, "latent_dim": 3}


def test_what_is_exact_is_converted(tmp_path):
    given = {
        "steps": 1e0, "seed": 0.0, "first_order": 1, "batch": np.int64(2), "lr": np.float32(0.5), "alpha": 1,
        "data_dir": tmp_path, "beta": torch.tensor(0.25), "skip_bad": np.bool_(False), "num_neighbours": np.array(2),
    }  # fmt: skip
    options = FitOptions("digits", latent_dim=3, **given)
    for name, kind in (("steps", int), ("seed", int), ("first_order", bool), ("batch", int), ("lr", float),
                       ("alpha", float), ("data_dir", str), ("beta", float), ("skip_bad", bool)):  # fmt: skip
        assert type(getattr(options, name)) is kind
    fit(options, str(tmp_path / "run"))
    assert read_options(str(tmp_path / "run")) == load_run(str(tmp_path / "run")).options == options
    assert resume(str(tmp_path / "run")).options == options


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 1.5), ("steps", "10"), ("steps", True), ("seed", None), ("first_order", 2), ("alpha", [1.0]),
     ("dataset", 3), ("lr", "small"), ("batch", math.inf), ("num_neighbours", np.ones(2)), ("clip", 1j)],
)  # fmt: skip
def test_what_is_not_is_refused_before_anything_is_done(name, value):
    with pytest.raises(TypeError, match=f"^{name} is "):
        FitOptions(**{**SMALL, name: value})


@pytest.mark.parametrize("value", [-1, 2**32])
def test_a_seed_is_one_of_numpys(value):
    with pytest.raises(ValueError, match=r"seed is .*: it must be from 0 to 4294967295"):
        FitOptions("digits", seed=value)


def test_a_preset_is_read_off_the_options():
    for name, protocol in PRESETS.items():
        options = FitOptions.of(name, dataset="cars3d")
        assert options.preset == name
        assert options.under(name) == options
        for key, value in protocol.items():
            changed = replace(options, **{key: 16 if value is None else value * 2 + 1})
            assert changed.preset == f"{name}, changed"
            assert changed.under(name) == options
    for preset, tuned in TUNED.items():
        for dataset, values in tuned.items():
            options = FitOptions.of(preset, dataset=dataset)
            wanted = values | ({"beta": 1.0} if preset == "night" else {})  # at 64×64
            assert {key: getattr(options, key) for key in wanted} == wanted
            assert options.preset == preset


def test_another_protocol_keeps_the_one_neighbour_of_the_mean():
    options = FitOptions.of("quick", dataset="digits", neighbourhood="noise-mean")
    assert options.num_neighbours == options.under("paper").num_neighbours == 1
    assert FitOptions.of("quick", dataset="3dshapes").under("quick").num_neighbours == 1


def test_an_empty_data_directory_is_the_default():
    assert FitOptions("digits", data_dir="").data_dir is None


def test_nobody_can_give_a_label():
    assert "preset" not in {field.name for field in fields(FitOptions)}
    with pytest.raises(TypeError, match="preset"):
        FitOptions("digits", preset="quick")


def test_a_run_says_its_preset(tmp_path):
    fit(FitOptions.of("quick", **SMALL, steps=1), tmp_path / "run")
    assert json.loads((tmp_path / "run/options.json").read_text())["preset"] == "quick, changed"


def test_options_that_a_run_lacks_have_their_default(tmp_path):
    for given in ({"dataset": "digits"}, {"dataset": "digits", "steps": 5, "versions": {}, "unheard_of": 1}):
        (tmp_path / "options.json").write_text(json.dumps(given))
        assert read_options(tmp_path) == FitOptions("digits", steps=given.get("steps", FitOptions.steps))


def test_paths_are_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    options = FitOptions("mine.npz", data_dir="data", neighbourhood="graph:ring.npz")
    assert options.dataset == str(tmp_path / "mine.npz")
    assert options.data_dir == str(tmp_path / "data")
    assert options.neighbourhood == f"graph:{tmp_path / 'ring.npz'}"
    Path("digits").mkdir()
    assert FitOptions("digits").dataset == "digits"  # the name comes first


def test_the_callers_default_type_is_of_no_account(tmp_path, double):
    options = FitOptions.of("quick", **SMALL, steps=2)
    in_double = fit(options, tmp_path / "double")
    index = torch.arange(2)
    x = in_double.dataset.batch(index)
    codes = in_double.encode(x, in_double.neighbourhood(index, x))
    assert in_double.sample(x, None, 2).dtype == codes.dtype == torch.float32
    assert torch.get_default_dtype() == torch.float64
    torch.set_default_dtype(torch.float32)
    single = fit(options, tmp_path / "single")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("single", "double")]
    assert weights[0] == weights[1]
    assert torch.equal(single.encode(x, single.neighbourhood(index, x)), codes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stepss", "no option is called 'stepss': did you mean 'steps'?"),
        ("neighborhood", "no option is called 'neighborhood': did you mean 'neighbourhood'?"),
        ("RANGES", "no option is called 'RANGES': choose from dataset, data_dir, alpha, "),
    ],
)
def test_unknown_options_suggest_the_nearest(name, message):
    with pytest.raises(TypeError) as error:
        FitOptions.of("quick", **{**SMALL, name: None})
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"refresh": 5, "neighbourhood": "noise"},
            "`refresh` has no effect on `neighbourhood` noise, only on latent-knn: leave it out, or choose latent-knn",
        ),
        (
            {"index": "Flat", "neighbourhood": "graph:mine.npz"},
            "`index` has no effect on `neighbourhood` graph, only on input-knn: leave it out, or choose input-knn",
        ),
        (
            {"index": "Flat"},  # the default of digits
            "`index` has no effect on `neighbourhood` latent-knn, only on input-knn: leave it out, or choose input-knn",
        ),
        ({"frame": "pad"}, "`frame` has no effect on `dataset` digits, only on your own images: leave it out"),
        ({"skip_bad": True}, "`skip_bad` has no effect on `dataset` digits, only on your own images: leave it out"),
        (
            {"micro_batch": 3},
            "`micro_batch` is 3, but a batch has 2 neighbourhoods: give at most 2, or leave it out",
        ),
    ],
)
def test_options_without_effect_are_refused(given, message, tmp_path):
    """But not in runs that have them already, nor in changed options."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        FitOptions.of("quick", **{**SMALL, **given})
    (tmp_path / "options.json").write_text(json.dumps({**SMALL, **given}))
    for read in (read_options(tmp_path), replace(FitOptions.of("quick", **SMALL), **given)):
        assert read.under("paper").batch == 25


@pytest.mark.parametrize(
    "given",
    [
        {"refresh": 5, "neighbourhood": "latent-knn"},
        {"refresh": 5},
        {"refresh": 0, "neighbourhood": "noise"},
        {"index": "Flat", "neighbourhood": "input-knn"},
        {"refresh": 5, "index": "Flat", "neighbourhood": "own"},
        {"frame": "pad", "skip_bad": True, "dataset": "photos/"},
        {"frame": "crop", "skip_bad": False},
        {"micro_batch": 2},
        {"micro_batch": 16, "batch": None, "dataset": "3dshapes"},
    ],
)
def test_options_with_an_effect_are_accepted(given, monkeypatch):
    monkeypatch.setitem(NEIGHBOURHOODS, "own", "__main__:Own")
    options = FitOptions.of("quick", **{**SMALL, **given})
    assert {name: getattr(options, name) for name in {*given} - {"dataset", "batch"}} == {
        name: value for name, value in given.items() if name not in ("dataset", "batch")
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"neighbourhood": "noize"}, "no neighbourhood is called 'noize': did you mean 'noise'?"),
        ({"neighbourhood": "grahp:ring.npz"}, "no neighbourhood is called 'grahp': did you mean 'graph'?"),
        ({"local": "one-stop"}, "no local inference is called 'one-stop': did you mean 'one-step'?"),
        ({"likelihood": "bernouli"}, "no likelihood is called 'bernouli': did you mean 'bernoulli'?"),
        ({"activation": "softpluss"}, "no activation is called 'softpluss': did you mean 'softplus'?"),
        ({"penalty": "tcc"}, "no penalty is called 'tcc': did you mean 'tc'?"),
    ],
)
def test_names_are_looked_up_before_the_data_are_loaded(given, message, tmp_path, monkeypatch):
    """Not earlier: a script may read options before it adds its own names to the tables."""
    monkeypatch.setattr("hierarchical_lvae.runs.run.load_dataset", None)
    options = FitOptions(**{**SMALL, **given})
    for use in (prepare, lambda options: fit(options, tmp_path / "run")):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            use(options)
    assert not (tmp_path / "run").exists()


def test_a_frame_is_crop_or_pad():
    with pytest.raises(ValueError, match=r"^no frame is called 'padd': did you mean 'pad'\?$"):
        FitOptions("photos/", frame="padd")
