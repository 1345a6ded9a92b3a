"""Nearest neighbours by pixels and by codes, against brute force."""

import numpy as np
import pytest
import torch

from hierarchical_lvae.data import FactorImages
from hierarchical_lvae.neighbourhoods import build_neighbourhood
from hierarchical_lvae.neighbourhoods.latent import nearest_codes
from hierarchical_lvae.neighbourhoods.search import all_neighbours, recall


def brute_force(points, number):
    """Ids of the nearest other points, in float64."""
    distances = torch.cdist(points.double(), points.double())
    distances.fill_diagonal_(torch.inf)
    return distances.argsort(1)[:, :number]


def of_pixels(tensor):
    empty = np.zeros((len(tensor), 0), np.int64)
    return FactorImages(tensor, empty, (), (), "images of a test")


def test_nearest_pixels_are_those_of_brute_force(surroundings, data):
    index = torch.arange(60)
    x = data.batch(index)
    neighbourhood = build_neighbourhood("input-knn", surroundings(5))
    neighbourhood.prepare()
    expected = brute_force(x.flatten(1), 5)
    assert torch.equal(neighbourhood.ids.long(), expected)
    assert torch.equal(neighbourhood(index, x), x[expected])
    assert recall(data, expected.numpy()) == 1
    wrong = expected.roll(1, 0).numpy()
    assert recall(data, wrong) < 0.3


def test_nearest_pixels_are_exact_on_a_bright_background():
    rng = np.random.default_rng(0)
    images = np.full((300, 3, 64, 64), 255, np.uint8)
    images[:, 0, 0, 0] = rng.permutation(300) % 250  # on this, |x|² is 12,000 and rounded by far more than the steps
    images[:, 1, 1, :] -= rng.integers(4, size=(300, 64), dtype=np.uint8)
    data = of_pixels(torch.from_numpy(images))
    ids = all_neighbours(data, 5, "Flat")
    flat = images.reshape(300, -1).astype(np.int64)
    distances = np.array([((flat - row) ** 2).sum(1) for row in flat])
    found = np.take_along_axis(distances, ids.astype(np.int64), 1)
    np.fill_diagonal(distances, distances.max())
    np.testing.assert_array_equal(found, np.sort(distances, 1)[:, :5])
    assert recall(data, ids) > 0.99


def test_copies_of_the_query_are_neighbours_and_the_query_is_not(surroundings):
    images = torch.randint(256, (1, 1, 8, 8), dtype=torch.uint8).repeat(20, 1, 1, 1)
    ids = all_neighbours(of_pixels(images), 4, "Flat")
    assert ids.shape == (20, 4)
    for own, row in enumerate(ids):
        assert len(set(row.tolist()) - {own}) == 4


@pytest.mark.parametrize("factory", ["PCA16,IVF8,Flat", "IVF4,Flat", "PCA20,Flat", "PCA999,Flat", "SQ8"])
def test_an_index_finds_nearly_all_and_says_how_many(factory, surroundings, caplog):
    torch.manual_seed(0)
    blobs = torch.randint(60, 190, (30, 1, 8, 8)).repeat_interleave(40, 0)
    data = of_pixels((blobs + torch.randint(-30, 30, blobs.shape)).to(torch.uint8))
    with caplog.at_level("INFO"):
        neighbourhood = build_neighbourhood("input-knn", surroundings(5, data=data, index=factory))
        neighbourhood.prepare()
    ids = neighbourhood.ids.numpy()
    exact = brute_force(data.batch(torch.arange(1200)).flatten(1), 5).numpy()
    share = np.mean([len(np.intersect1d(a, b)) / 5 for a, b in zip(ids, exact, strict=True)])
    assert share > 0.2
    # distances are rounded: of those nearly equal, the two exact searches may differ in one or two of the 6,000
    assert recall(data, ids, sample=1200) == pytest.approx(share, abs=5e-4)
    assert f"recall@5 of {factory}: " in caplog.text
    assert (ids // 40 == np.arange(1200)[:, None] // 40).mean() > 0.95  # all of the same blob


def test_bad_indices_are_one_line(surroundings):
    for factory, message in (
        ("IFV8,Flat", "Faiss has no index 'IFV8,Flat'"),
        ("IVF100,Flat", "cannot be trained"),
        ("PCA0,Flat", "has no components"),
    ):
        neighbourhood = build_neighbourhood("input-knn", surroundings(3, index=factory))
        with pytest.raises(ValueError, match=message) as caught:
            neighbourhood.prepare()
        assert "\n" not in str(caught.value)


def test_flat_is_refused_where_it_would_fill_the_memory(surroundings, monkeypatch):
    monkeypatch.setattr("hierarchical_lvae.neighbourhoods.search.FLAT_BYTES", 1_000)
    with pytest.raises(ValueError, match="Flat would hold 0 GB of floats: leave `index` out"):
        build_neighbourhood("input-knn", surroundings(3, index="Flat")).prepare()


def test_neighbours_are_kept_by_fingerprint_and_made_anew_if_damaged(surroundings, data, monkeypatch, tmp_path, caplog):
    first = build_neighbourhood("input-knn", surroundings(4))
    first.prepare()
    (file,) = (tmp_path / "cache").iterdir()
    assert data.fingerprint in file.name
    with monkeypatch.context() as patch:
        patch.setattr("hierarchical_lvae.neighbourhoods.pixels.all_neighbours", None)
        second = build_neighbourhood("input-knn", surroundings(4))
        second.prepare()
        assert torch.equal(first.ids, second.ids)
    for damage in (b"\x93NUMPY broken", file.read_bytes()[:-50]):
        file.write_bytes(damage)
        third = build_neighbourhood("input-knn", surroundings(4))
        third.prepare()
        assert torch.equal(first.ids, third.ids)
        assert "ignoring" in caplog.text
    np.savez(file, ids=np.zeros((60, 5), np.int32))
    build_neighbourhood("input-knn", surroundings(4)).prepare()
    assert "it holds int32 of shape (60, 5)" in caplog.text


def test_nearest_codes_follow_the_encoder(surroundings, data):
    index = torch.arange(60)
    x = data.batch(index)
    calls = []

    def encode(x):
        calls.append(len(x))
        return scale[0] * x.mean((1, 3))

    scale = [1.0]
    neighbourhood = build_neighbourhood("latent-knn", surroundings(5, encode=encode))
    neighbourhood.prepare()
    assert calls == [60]
    assert torch.equal(neighbourhood(index, x), x[brute_force(x.mean((1, 3)), 5)])

    scale[0] = -1.0  # another encoder: only what is seen is encoded anew
    seen = torch.tensor([3, 7])
    neighbourhood.update(seen, x[seen])
    assert calls == [60, 2]
    bank = x.mean((1, 3))
    bank[seen] *= -1
    torch.testing.assert_close(neighbourhood.codes, bank)
    assert torch.equal(neighbourhood(index, x), x[brute_force(bank, 5)])
    assert calls == [60, 2]  # asking for neighbours changes nothing


def test_all_codes_are_refreshed_every_so_many_steps(surroundings, data):
    calls = []

    def encode(x):
        calls.append(len(x))
        return x.mean((1, 3))

    neighbourhood = build_neighbourhood("latent-knn", surroundings(2, encode=encode, refresh=3))
    neighbourhood.prepare()
    for _ in range(7):
        neighbourhood.update(torch.arange(2), data.batch(torch.arange(2)))
    assert calls == [60, 2, 2, 60, 2, 2, 60, 2]


def test_faiss_and_torch_agree():
    points = torch.randn(500, 10)
    queries = torch.randn(40, 10)
    expected = torch.cdist(queries, points).topk(6, largest=False).indices
    assert torch.equal(nearest_codes(queries, points, 6), expected)
