"""Scores of a run: written one by one, not computed twice, and defined where they do not apply."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hierarchical_lvae.analysis import (
    SCORES,
    ScoreSettings,
    closeness,
    distance,
    encode,
    geometry,
    likelihood,
    model_digest,
    read_scores,
    score,
)
from hierarchical_lvae.analysis import scores as scores_module
from hierarchical_lvae.analysis.images import choose_features
from hierarchical_lvae.files import write_tensors
from hierarchical_lvae.runs import prepare

FEW = ScoreSettings(train=120, test=60, neighbourhoods=3, draws=10, images=20, features="factors")


def failed(scores):
    return [name for name, values in scores.items() if "failed" in values]


def test_all_scores_are_written_one_by_one(run, tmp_path):
    for i, (name, values) in enumerate(score(replace(run, path=tmp_path), settings=FEW)):
        saved = json.loads((tmp_path / "metrics.json").read_text())
        assert list(saved) == list(SCORES[: i + 1])
        assert saved[name] == values
        assert values["settings"]["data"] == run.dataset.fingerprint
        assert values["settings"]["seed"] == 0
    assert saved["dci"]["factors"] == ["digit"]
    assert np.array(saved["dci"]["importance"]).shape == (3, 1)


def test_what_is_there_is_not_computed_again(run, tmp_path, monkeypatch):
    first = dict(score(replace(run, path=tmp_path), ("mig", "iwae"), FEW))
    monkeypatch.setattr("hierarchical_lvae.analysis.scores.encode", None)
    monkeypatch.setattr("hierarchical_lvae.analysis.bounds.draw_points", None)
    assert dict(score(replace(run, path=tmp_path), ("mig", "iwae"), FEW)) == first
    assert dict(score(replace(run, path=tmp_path), ("mig",), replace(FEW, draws=20)))["mig"] == first["mig"]
    for other in (replace(FEW, seed=1), replace(FEW, codes="meta")):  # other settings: it is
        assert failed(dict(score(replace(run, path=tmp_path), ("mig",), other))) == ["mig"]
    with torch.no_grad():
        run.vae.theta += 1
    try:
        assert failed(dict(score(replace(run, path=tmp_path), ("mig",), FEW))) == ["mig"]  # trained further: again
    finally:
        with torch.no_grad():
            run.vae.theta -= 1
    assert read_scores(tmp_path) == first


def test_a_score_outlives_a_release_but_not_a_change_of_the_score_or_of_numpy(run, tmp_path, monkeypatch):
    first = dict(score(replace(run, path=tmp_path), ("mig",), FEW))
    monkeypatch.setattr("hierarchical_lvae.analysis.scores.encode", None)
    usual = scores_module.version
    for other in ("hierarchical-lvae", "numpy"):
        monkeypatch.setattr(scores_module, "version", lambda name, other=other: "99" if name == other else usual(name))
        again = dict(score(replace(run, path=tmp_path), ("mig",), FEW))
        assert failed(again) == ([] if other == "hierarchical-lvae" else ["mig"])
        if other == "hierarchical-lvae":
            assert again == first  # with the release that computed it
    monkeypatch.setattr(scores_module, "version", usual)
    monkeypatch.setattr(scores_module, "VERSION", scores_module.VERSION + 1)
    assert failed(dict(score(replace(run, path=tmp_path), ("mig",), FEW))) == ["mig"]


def test_a_score_is_of_the_weights_that_were_scored(run, tmp_path):
    """Not of those that another process writes in the meantime; and `model_digest` reads the same off the file."""
    write_tensors(tmp_path / "model.safetensors", run.vae.state_dict())
    before = model_digest(str(tmp_path))
    for _, values in score(replace(run, path=tmp_path), ("samples", "mig"), FEW):
        write_tensors(tmp_path / "model.safetensors", {"theta": torch.zeros(3)})
        assert values["settings"]["model"] == before
    assert model_digest(tmp_path) != before


def test_scores_of_meta_codes_stand_beside_those_of_local_ones(run, tmp_path):
    for codes in ("meta", "local"):
        dict(score(replace(run, path=tmp_path), ("samples", "mig"), replace(FEW, codes=codes)))
    saved = read_scores(tmp_path)
    assert list(saved) == ["mig", "mig-meta", "samples"]  # in one order, whichever was first
    assert saved["mig"]["mig"] != saved["mig-meta"]["mig"]


def test_codes_are_seeded_local_or_meta(run):
    state = torch.get_rng_state()
    local, again, meta, other = (
        encode(run, 70, codes, seed) for codes, seed in (("local", 0), ("local", 0), ("meta", 0), ("local", 1))
    )
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(local.codes, again.codes)
    np.testing.assert_array_equal(local.factors, meta.factors)
    assert local.codes.shape == (70, 3)
    assert local.factors.shape == (70, 1)
    assert not np.allclose(local.codes, meta.codes)
    assert not np.array_equal(local.factors, other.factors)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        index = torch.randint(len(run.dataset), (70,))
    direct = run.encode(run.dataset.batch(index[:50]), None)  # what `encode` does, by hand
    np.testing.assert_allclose(meta.codes[:50], direct.numpy(), rtol=1e-6)


def test_the_likelihood_separates_points_adapted_on_from_held_out_points(run):
    values = likelihood(run, seed=0, neighbourhoods=3, draws=10)
    for part in ("adapted_on", "held_out", "reference"):
        assert set(values[part]["nats"]) == {"k=1", "k=10"}
        assert values[part]["bits_per_dimension"] == pytest.approx(-values[part]["nats"]["k=10"] / 64 / np.log(2))
    assert values["adapted_on"]["nats"]["k=10"] > values["held_out"]["nats"]["k=10"] - 2
    assert values["squared_error"]["local"] > 0
    assert 0 <= values["active_units"] <= 3


def test_without_factors_only_what_needs_none_is_available(run, tmp_path):
    bare = replace(run.dataset, factors=np.zeros((len(run.dataset), 0), int), factor_names=(), factor_sizes=())
    scores = dict(score(replace(run, dataset=bare, path=tmp_path), settings=FEW))
    for name in SCORES[:-2]:
        assert "have no factors" in scores[name]["not_available"]
    assert scores["samples"]["to_reference"] > 0
    assert "held_out" in scores["iwae"]


def test_the_distance_of_generated_images_is_named_by_its_features(run, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no weights here")

    monkeypatch.setattr("hierarchical_lvae.analysis.images.inception", refuse)
    settings = replace(FEW, features="auto")
    values = dict(score(replace(run, path=tmp_path), ("fid",), settings))["fid"]
    assert (values["name"], values["generated"], values["real"]) == ("FD-factors", 20, 20)
    assert values["settings"]["features"] == "FD-factors"
    assert values["distance"] > 0
    assert 0 < values["accuracy_of_factors"] < 1
    (weights,) = (tmp_path / "data").iterdir()
    assert weights.name == f"hlvae-factor-features-{run.dataset.fingerprint}-8x8.safetensors"
    again = distance(run, choose_features(run, settings), seed=0, images=20)  # by the classifier on file
    assert again == {key: value for key, value in values.items() if key != "settings"}
    with pytest.raises(OSError, match="no weights here"):
        choose_features(run, replace(FEW, features="inception"))


def test_samples_are_set_against_all_images_by_brute_force(run):
    values = closeness(run, seed=0, neighbourhoods=3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        index = torch.randint(len(run.dataset), (3,))
        x = run.dataset.batch(index)
        samples = run.sample(x, run.neighbourhood(index, x), 4)
    everything = run.dataset.batch(torch.arange(len(run.dataset)))

    def to_all(image):
        return (everything - image).square().mean((1, 2, 3)).sqrt()

    nearest = [to_all(image) for image in samples.flatten(0, 1)]
    assert values["to_nearest"] == pytest.approx(np.mean([d.min() for d in nearest]), rel=1e-5)
    assert values["to_reference"] == pytest.approx(
        (samples - x[:, None]).square().mean((2, 3, 4)).sqrt().mean().item(), rel=1e-5
    )
    own = np.mean([d.argmin() == index[i // 4] for i, d in enumerate(nearest)])
    assert values["nearest_is_reference"] == pytest.approx(own)
    others = [to_all(image).sort().values[1] for image in x]
    assert values["reference_to_nearest_other"] == pytest.approx(np.mean(others), rel=1e-5)


def test_nearest_images_are_exact_on_a_white_background(run):
    """The images differ by one level in some pixels, less than the rounding of their squared norms."""
    marks = torch.nn.functional.pad((run.dataset.images > 100).to(torch.uint8), (0, 24, 0, 24))
    dataset = replace(run.dataset, images=254 + marks, image_size=32)
    values = closeness(prepare(replace(run.options, image_size=32), dataset), seed=0, neighbourhoods=50)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        index = torch.randint(len(run.dataset), (50,))
    differing = (marks[index, None] != marks).double().mean((2, 3, 4))
    nearest = differing.scatter(1, index[:, None], torch.inf).amin(1).sqrt() / 255
    assert values["reference_to_nearest_other"] == pytest.approx(nearest.mean().item(), rel=1e-5)


def test_colours_are_told_from_geometry():
    names = ("floor hue", "wall hue", "object hue", "scale", "shape", "orientation")
    assert geometry(names) == [3, 4, 5]
    assert geometry(("digit",)) == [0]


@pytest.mark.parametrize(
    ("names", "changes", "message"),
    [
        (("mgi",), {}, "no score is called 'mgi': did you mean 'mig'"),
        (("mig",), {"codes": "locale"}, "no codes are called 'locale': did you mean 'local'"),
        (("mig",), {"features": "factor"}, "no features are called 'factor': did you mean 'factors'"),
        (("mig",), {"train": 0, "test": 0}, "train is 0: it must be from 1 to"),
        (("mig",), {"seed": -1}, "seed is -1: it must be from 0"),
    ],
)
def test_what_is_not_asked_for_rightly_is_refused_before_anything_is_computed(run, tmp_path, names, changes, message):
    with pytest.raises(ValueError, match=message):
        next(score(replace(run, path=tmp_path), names, replace(FEW, **changes)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["{broken", '{"mig": 0.5}'])
def test_a_file_that_holds_no_scores_is_left_as_it_is(run, tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(ValueError, match=r"metrics\.json (is not a JSON object|does not hold scores)"):
        next(score(replace(run, path=tmp_path), ("mig",), FEW))
    assert (tmp_path / "metrics.json").read_text() == content


def test_small_data_are_not_tested_on_what_they_were_fitted_on(run, monkeypatch):
    """More points than images: all of them, once each, shared out in the same proportion."""
    size, drawn, batch = len(run.dataset), [], type(run.dataset).batch
    monkeypatch.setattr(type(run.dataset), "batch", lambda self, index: drawn.append(index) or batch(self, index))
    some = ScoreSettings(train=2 * size, test=size).within(size)
    assert some.train + some.test == size
    assert some.train == pytest.approx(2 * size / 3, abs=1)
    encode(run, size, "meta")
    assert torch.cat(drawn).sort().values.equal(torch.arange(size))


def test_of_a_single_factor_nothing_is_told_apart(run, tmp_path):
    names = ("dci", "factor-vae", "beta-vae", "modularity")
    scores = dict(score(replace(run, path=tmp_path), names, ScoreSettings(train=40, test=20)))
    assert "disentanglement" not in scores["dci"]
    assert 0 <= scores["dci"]["informativeness_test"] <= 1
    assert all(scores[name]["not_available"].startswith("there is only one factor") for name in names[1:])
