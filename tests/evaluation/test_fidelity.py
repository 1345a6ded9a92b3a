"""Distances between sets of images, through torch-fidelity's own code: Inception with made-up weights, and factors."""

import numpy as np
import pytest
import torch

from hierarchical_lvae.evaluation import (
    FactorClassifier,
    factor_features,
    fidelity,
    inception,
    train_factor_classifier,
)
from hierarchical_lvae.evaluation.factor_classifier import load_classifier
from hierarchical_lvae.files import read_tensors, write_tensors

INCEPTION = "torch_fidelity.feature_extractor_inceptionv3"


def stream(images):
    """Draw images in their order."""
    rest = iter(images.split(1))
    return lambda number: torch.cat([next(rest) for _ in range(number)])


def compare(a, b, features, **more):
    return fidelity(stream(a), stream(b), len(a), len(b), features, **more)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """A file of made-up weights for torch-fidelity's Inception."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{INCEPTION}.load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        network = FeatureExtractorInceptionV3("made-up", ["64"])
    path = tmp_path_factory.mktemp("weights") / "made-up.pth"
    torch.save(network.state_dict(), path)
    return path


def test_inception_with_made_up_weights_is_no_fid_and_a_set_is_at_no_distance_from_itself(made_up):
    features = inception(made_up, layer="64")
    assert features.name.startswith("FD-inception-64-")
    images = torch.rand(40, 3, 16, 16)
    same = compare(images, images, features)
    assert same.name == features.name
    assert same.distance == pytest.approx(0, abs=1e-4)
    assert (same.precision, same.recall, same.generated, same.real) == (1, 1, 40, 40)
    grey = compare(images[:, :1], images, features)  # grey images are seen too
    assert grey.distance > 100 * max(same.distance, 1e-6)


def test_the_name_fid_needs_the_reference_weights(made_up, monkeypatch):
    monkeypatch.setattr("hierarchical_lvae.evaluation.frechet._sha256", lambda _: "6726825d" + "0" * 56)
    assert inception(made_up).name == "FID"
    assert inception(made_up, layer="64").name == "FD-inception-64-6726825d"


def test_without_a_file_the_weights_are_torch_hubs(made_up, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    place = tmp_path / "checkpoints/weights-inception-2015-12-05-6726825d.pth"

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(f"{INCEPTION}.load_state_dict_from_url", refuse)
    with pytest.raises(OSError, match=r"cannot be downloaded \(no network\)"):
        inception()
    place.parent.mkdir()
    place.write_bytes(made_up.read_bytes())
    assert inception().weights == place


def test_files_that_are_no_weights_are_refused(made_up, tmp_path):
    (tmp_path / "truncated.pth").write_bytes(made_up.read_bytes()[:100_000])
    torch.save({"w": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save({"w": compare}, tmp_path / "code.pth")
    for name in ("truncated", "code"):
        with pytest.raises(ValueError, match=f"{name}.pth is not a table of weights"):
            inception(tmp_path / f"{name}.pth")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        inception(tmp_path / "nowhere.pth")
    images = torch.rand(6, 3, 16, 16)
    with pytest.raises(ValueError, match=r"other\.pth does not contain the weights of inception"):
        compare(images, images, inception(tmp_path / "other.pth"))
    with pytest.raises(ValueError, match="at least 5 of each"):
        compare(images[:4], images, inception(tmp_path / "other.pth"))


def test_images_that_are_not_finite_have_no_distance(made_up):
    images = torch.rand(20, 3, 16, 16)
    broken = images.clone()
    broken[3, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="images have pixels that are not finite"):
        compare(broken, images, inception(str(made_up), layer="64"))


def squares(number):
    """Bright or dark squares, left or right: two factors."""
    factors = torch.randint(2, (number, 2))
    x = torch.zeros(number, 1, 16, 16)
    for image, (bright, right) in zip(x, factors.tolist(), strict=True):
        image[:, 4:12, 8 * right : 8 * right + 8] = 0.4 + 0.5 * bright
    return (x + 0.05 * torch.rand_like(x)).clamp(0, 1), factors


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    from hierarchical_lvae.files import write_tensors

    torch.manual_seed(0)
    trained = train_factor_classifier(squares, (1, 16, 16), (2, 2), steps=60)
    assert trained.accuracy > 0.95
    path = tmp_path_factory.mktemp("weights") / "factors.safetensors"
    write_tensors(path, trained.state_dict())
    return trained, path


def test_the_distance_in_the_factors_features_is_the_formula(classifier):
    trained, path = classifier
    features = factor_features(path)
    assert features.name == "FD-factors"
    (a, _), (b, _) = squares(150), squares(80)
    a = 1 - a
    result = compare(a, b, features)
    f, g = (trained.features((x * 255).round() / 255).numpy().astype(np.float64) for x in (a, b))
    A, B = (np.cov(h, rowvar=False) for h in (f, g))
    roots, vectors = np.linalg.eigh(A)
    half = vectors * roots.clip(0) ** 0.5 @ vectors.T
    trace = np.sqrt(np.linalg.eigvalsh(half @ B @ half).clip(0)).sum()  # of (A B)^½, by a symmetric matrix
    distance = ((f.mean(0) - g.mean(0)) ** 2).sum() + np.trace(A) + np.trace(B) - 2 * trace
    assert result.distance == pytest.approx(distance, rel=1e-3)
    assert (result.generated, result.real) == (150, 80)


def test_what_is_missing_from_the_images_shows_in_the_distance_and_in_recall(classifier):
    _, path = classifier
    x, factors = squares(400)
    bright = x[factors[:, 0] == 1]
    one_sided = compare(bright[:100], x[:100], factor_features(path))
    alike = compare(x[200:300], x[:100], factor_features(path))
    assert one_sided.distance > 5 * alike.distance
    assert one_sided.kid > alike.kid
    assert one_sided.recall < alike.recall
    noise = compare(torch.rand(100, 1, 16, 16), x[:100], factor_features(path))
    assert noise.precision < 0.1 < alike.precision


def test_a_classifier_of_images_that_are_all_alike_is_of_use(tmp_path):
    """Features without a spread are left as they are: nothing is divided by zero."""
    from hierarchical_lvae.files import write_tensors

    def grey(number):
        return torch.full((number, 1, 16, 16), 0.5), torch.randint(2, (number, 2))

    trained = train_factor_classifier(grey, (1, 16, 16), (2, 2), steps=5)
    assert trained.scale == 1
    write_tensors(tmp_path / "alike.safetensors", trained.state_dict())
    same, other = grey(20)[0], torch.rand(20, 1, 16, 16)
    features = factor_features(str(tmp_path / "alike.safetensors"))
    assert compare(same, same, features).distance == pytest.approx(0, abs=1e-6)
    assert compare(other, same, features).distance > 1e-6


def test_a_classifier_is_rebuilt_from_its_tensors(classifier):
    trained, _ = classifier
    x, _ = squares(1_000)
    assert trained.features(x).var(0).mean().item() == pytest.approx(1, rel=0.1)
    rebuilt = load_classifier(dict(trained.state_dict()))
    assert torch.equal(rebuilt.features(x), trained.features(x))


def test_a_classifier_is_read_back_whatever_the_order_in_its_file(tmp_path):
    torch.manual_seed(0)
    classifier = FactorClassifier((3, 8, 8), [10, 8, 4, 15, 2])
    write_tensors(tmp_path / "weights.safetensors", classifier.state_dict())
    state = torch.get_rng_state()
    read = load_classifier(dict(reversed(read_tensors(tmp_path / "weights.safetensors").items())))
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.rand(2, 3, 8, 8)
    assert all(torch.equal(a, b) for a, b in zip(read(x), classifier(x), strict=True))
