"""What fails, does not apply, or cannot be saved does not keep the other scores from being computed."""

import errno
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from hierarchical_lvae.analysis import (
    Encoded,
    ScoreSettings,
    classifier,
    read_scores,
    score,
)
from hierarchical_lvae.analysis.codes import disentanglement
from hierarchical_lvae.analysis.images import choose_features
from hierarchical_lvae.analysis.store import Store
from hierarchical_lvae.files import explained, read_tensors, write_tensors

FEW = ScoreSettings(train=120, test=60, neighbourhoods=3, draws=10, images=20, features="factors")


def failed(scores):
    return [name for name, values in scores.items() if "failed" in values]


def test_a_failed_score_leaves_the_others(run, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyError("a mistake\nof ours")

    names = ("mig", "samples", "iwae", "sap")
    with monkeypatch.context() as patch:
        patch.setattr("hierarchical_lvae.analysis.images.closeness", fail)
        scores = dict(score(replace(run, path=tmp_path), names, FEW))
    assert scores["samples"] == {"failed": r"unexpected KeyError: 'a mistake\nof ours'"}
    assert failed(scores) == ["samples"]
    assert list(read_scores(tmp_path)) == ["mig", "sap", "iwae"]  # a failure is not a result
    assert "to_reference" in dict(score(replace(run, path=tmp_path), names, FEW))["samples"]
    monkeypatch.setattr("hierarchical_lvae.analysis.scores.encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dict(score(replace(run, path=tmp_path), names, replace(FEW, seed=1)))


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_a_diverged_model_fails_score_by_score(run, tmp_path):
    theta, phi = run.vae.theta.detach().clone(), run.vae.phi.detach().clone()
    with torch.no_grad():
        run.vae.phi[:] = math.nan
    try:
        scores = dict(score(replace(run, path=tmp_path), settings=FEW))
        with torch.no_grad():
            run.vae.theta[:] = math.nan
        images = dict(score(replace(run, path=tmp_path), ("fid",), FEW))
    finally:
        with torch.no_grad():
            run.vae.phi[:], run.vae.theta[:] = phi, theta
    for name, points in (("dci", 120), ("mig", 120), ("sap", 120), ("iwae", 100)):
        assert scores[name]["failed"].startswith(f"the codes of {points} of {points} points are not finite")
    assert images["fid"]["failed"].startswith("images have pixels that are not finite")
    assert not set(failed(scores)) & set(read_scores(tmp_path))


def made_up(factors):
    """Codes that know every factor (n, F) but for some noise, and these."""
    noise = np.random.default_rng(0).normal(size=factors.shape)
    return Encoded((factors + 0.1 * noise).astype(np.float32), factors)


def test_factors_that_cannot_be_scored_are_left_out_and_named():
    """The scores are those of the other factors alone."""
    rng = np.random.default_rng(0)
    good = rng.integers([3, 4], size=(180, 2))
    rare = np.zeros(180, int)
    rare[150] = 1  # in the test points alone
    once = np.zeros(180, int)
    once[3] = 1  # in the train points alone
    bad = [np.zeros(180, int), np.arange(180), rare, once]
    points = made_up(good)
    more = Encoded(points.codes, np.column_stack([bad[0], good[:, 0], *bad[1:], good[:, 1]]))
    names = ("camera", "level", "id", "rare", "once", "shade")
    for name in ("dci", "mig", "sap", "factor-vae", "beta-vae", "modularity"):
        found = disentanglement(name, more, names, FEW)
        assert found.pop("left_out") == {
            "camera": "constant at the 120 training points",
            "id": "120 values at 120 points",
            "rare": "constant at the 120 training points",
            "once": "constant at the 60 test points",
        }
        assert found == disentanglement(name, points, ("level", "shade"), FEW)
    none = disentanglement("dci", Encoded(points.codes, more.factors[:, [0, 2]]), ("camera", "id"), FEW)
    assert none["not_available"] == (
        "no factor can be scored: camera (constant at the 120 training points), id (120 values at 120 points)"
    )


def test_classes_that_are_rare_or_in_one_set_alone_are_scored():
    factors = np.random.default_rng(0).integers([3, 4], size=(180, 2))
    factors[5, 0], factors[170, 0] = 3, 4  # one member each, to fit on and to test on
    points = made_up(factors)
    for name in ("dci", "mig", "sap", "factor-vae", "beta-vae", "modularity"):
        found = disentanglement(name, points, ("level", "shade"), FEW)
        assert "left_out" not in found
        assert all(0 <= value <= 1 for value in found.values() if isinstance(value, float))


@pytest.mark.parametrize("bad", ["constant", "unique", "alike"])
def test_a_distance_in_the_factors_features_is_finite_on_odd_data(run, tmp_path, bad):
    """Constant factors and identifiers are not learnt, and images that are all alike have no spread to divide by."""
    data, size = run.dataset, len(run.dataset)
    column = np.zeros(size, int) if bad == "constant" else np.arange(size)
    factors = np.column_stack([data.factors, column])
    data = replace(data, factors=factors, factor_names=("digit", bad), factor_sizes=(10, int(column.max()) + 1))
    if bad == "alike":
        data = replace(data, images=torch.full_like(data.images, 128))
    values = dict(score(replace(run, dataset=data, path=tmp_path), ("fid", "samples"), FEW))
    assert all(math.isfinite(values["fid"][key]) for key in ("distance", "kid", "kid_std", "precision", "recall"))
    assert failed(values) == []
    (weights,) = (tmp_path / "data").glob("hlvae-factor-features-*")
    tensors = read_tensors(weights)
    assert tensors["heads.0.bias"].shape == (10,)
    assert "heads.1.bias" not in tensors
    assert tensors["scale"] > 0
    if bad == "alike":
        assert tensors["scale"] == 1
        write_tensors(weights, {**tensors, "scale": torch.tensor(0.0)})  # as earlier versions left it: made again
        assert dict(score(replace(run, dataset=data, path=tmp_path / "2"), ("fid",), FEW))["fid"] == {**values["fid"]}


def test_data_that_are_too_few_for_a_score_are_not_a_failure(run, tmp_path):
    def of(number):
        data = replace(run.dataset, images=run.dataset.images[:number], factors=run.dataset.factors[:number])
        few = replace(run, dataset=data)
        return dict(score(replace(few, path=tmp_path / str(number)), ("mig", "fid", "samples"), FEW))

    one, four = of(1), of(4)
    assert failed(one) == failed(four) == []
    assert one["samples"]["not_available"] == "there is only one image, so no other can be the nearest"
    assert one["mig"]["not_available"].startswith("no factor can be scored: digit (constant")
    assert "reference_to_nearest_other" in four["samples"]
    assert four["fid"]["not_available"].endswith("have no factors that can be scored")


def test_a_single_neighbourhood_has_no_standard_error(run, tmp_path):
    values = dict(score(replace(run, path=tmp_path), ("iwae",), replace(FEW, neighbourhoods=1)))["iwae"]
    assert values["held_out"]["standard_error"] is None
    assert values["held_out"]["nats"]["k=10"] < 0


def test_two_processes_do_not_lose_each_others_scores(run, tmp_path):
    """Each score is merged into what is there at that moment."""
    first, second = Store(tmp_path), Store(tmp_path)
    first.add("mig", {"mig": 1.0})
    second.add("sap", {"sap": 1.0})
    assert read_scores(tmp_path) == {"mig": {"mig": 1.0}, "sap": {"sap": 1.0}}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: Store(tmp_path).add(f"score {i}", {"value": i}), range(40)))
    assert len(read_scores(tmp_path)) == 42
    assert second.find("score 7", {}) is None
    scores = score(replace(run, path=tmp_path), ("samples", "mig"), FEW)
    next(scores)
    Store(tmp_path).add("beta-vae", {"score": 0.5})
    next(scores)
    assert {"samples", "mig", "beta-vae", "sap"} <= set(read_scores(tmp_path))


def test_a_file_system_without_locks_is_scored_on_too(run, tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    dict(score(replace(run, path=tmp_path), ("samples", "mig"), FEW))
    assert list(read_scores(tmp_path)) == ["mig", "samples"]
    assert [record.message for record in caplog.records if "does not support locks" in record.message] == [
        f"{tmp_path} does not support locks (No locks available): do not use it from two processes"
    ]


@pytest.mark.parametrize(("number", "fatal"), [(errno.EROFS, False), (errno.EACCES, False), (errno.ENOSPC, True)])
def test_scores_that_cannot_be_saved_are_given_all_the_same(run, tmp_path, monkeypatch, caplog, number, fatal):
    """With a warning if the place is read-only; a full disk is an error, after the last score."""

    def refuse(path, *_):
        raise explained(path, OSError(number, "of the disk"))

    monkeypatch.setattr("hierarchical_lvae.analysis.store.write_json", refuse)
    scores = score(replace(run, path=tmp_path), ("samples", "mig"), FEW)
    assert [(name, failed({name: values})) for name, values in (next(scores), next(scores))] == [
        ("samples", []), ("mig", [])
    ]  # fmt: skip
    if fatal:
        with pytest.raises(OSError, match=r"metrics\.json cannot be written \(of the disk\)"):
            next(scores)
    else:
        assert list(scores) == []
    assert [record.message.partition(":")[0] for record in caplog.records] == ["scores are not saved"]


def test_a_classifier_that_cannot_be_cached_is_used(run, tmp_path, monkeypatch, caplog):
    """By all scores of this process: it is trained once."""
    trained = []
    monkeypatch.setattr(classifier, "_UNCACHED", {})
    original = classifier.train_factor_classifier
    monkeypatch.setattr(classifier, "train_factor_classifier", lambda *a, **k: trained.append(1) or original(*a, **k))
    (tmp_path / "data").write_text("a file, where the directory would be")
    for seed in (0, 1):
        values = dict(score(replace(run, path=tmp_path / "run"), ("fid",), replace(FEW, seed=seed)))["fid"]
        assert values["name"] == "FD-factors"
    assert trained == [1]
    assert [r.message.partition(":")[0] for r in caplog.records] == ["cannot cache the classifier of the factors"]


def test_a_damaged_classifier_is_trained_again(run, tmp_path):
    first = choose_features(run, FEW)
    content = first.weights.read_bytes()
    first.weights.write_bytes(content[:100])
    assert choose_features(run, FEW).weights.read_bytes() == content


def test_double_precision_is_left_to_the_caller(run, tmp_path, double):
    names = ("mig", "fid", "samples", "iwae")
    for name, values in score(replace(run, path=tmp_path / "double"), names, FEW):
        assert torch.get_default_dtype() == torch.float64, name
        assert failed({name: values}) == []
    torch.set_default_dtype(torch.float32)
    assert read_scores(tmp_path / "double") == dict(score(replace(run, path=tmp_path / "single"), names, FEW))
