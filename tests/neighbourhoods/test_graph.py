"""Graphs of one's own: what is read, and what is refused."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, save_npz

from hierarchical_lvae.neighbourhoods import build_neighbourhood


def graph(surroundings, path, number=2):
    neighbourhood = build_neighbourhood(f"graph:{path}", surroundings(number))
    neighbourhood.prepare()
    return neighbourhood


def ring(*offsets):
    return (np.arange(60)[:, None] + np.array(offsets)) % 60


def test_an_array_of_ids_is_a_graph(surroundings, data, tmp_path):
    np.savez(tmp_path / "ring.npz", ids=ring(1, 2, 2, 0))  # twice counts once, oneself not at all
    neighbourhood = graph(surroundings, tmp_path / "ring.npz")
    index = torch.tensor([0, 59])
    x_N = neighbourhood(index, data.batch(index))
    for row, ids in zip(x_N, ([1, 2], [0, 1]), strict=True):
        expected = data.batch(torch.tensor(ids))
        assert torch.equal(row, expected) or torch.equal(row, expected.flip(0))
    with pytest.raises(ValueError, match=r"point 0 has 2 neighbours in .*ring\.npz, but K is 3"):
        graph(surroundings, tmp_path / "ring.npz", 3)


def test_all_edges_are_drawn_alike(surroundings, data, tmp_path):
    save_npz(
        tmp_path / "sparse.npz", csr_array((np.ones(240), (np.repeat(np.arange(60), 4), ring(1, 2, 3, 4).ravel())))
    )
    neighbourhood = graph(surroundings, tmp_path / "sparse.npz", 1)
    x = data.batch(torch.arange(1))
    drawn = torch.stack([neighbourhood(torch.tensor([0]), x)[0, 0] for _ in range(200)])
    counts = [(drawn == image).flatten(1).all(1).sum().item() for image in data.batch(torch.arange(1, 5))]
    assert sum(counts) == 200
    assert min(counts) > 25


def test_what_is_no_graph_of_the_data_is_one_line(surroundings, tmp_path):
    np.savez(tmp_path / "short.npz", ids=ring(1)[:50])
    np.savez(tmp_path / "far.npz", ids=ring(1) + 1)
    np.savez(tmp_path / "floats.npz", ids=ring(1).astype(float))
    np.savez(tmp_path / "two.npz", a=ring(1), b=ring(2))
    np.savez(tmp_path / "pickle.npz", ids=np.array([{"a": 1}], dtype=object))
    save_npz(tmp_path / "square.npz", csr_array((30, 30)))
    save_npz(tmp_path / "empty.npz", csr_array((60, 60)))
    np.savez(tmp_path / "name.npz", format=np.array(b"\xc9sr"))
    (tmp_path / "text.npz").write_text("no zip")
    for name, message in (
        ("short", "has neighbours of 50 points, but the data have 60"),
        ("far", r"has edges to points 1 … 60, but the data have points 0 … 59"),
        ("floats", "is neither a sparse matrix nor one integer array"),
        ("two", "is neither a sparse matrix nor one integer array"),
        ("pickle", "holds Python objects"),
        ("square", r"has shape \(30, 30\), but the data have 60"),
        ("empty", "point 0 has 0 neighbours"),
        ("name", "cannot be read"),
        ("text", "cannot be read"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            graph(surroundings, tmp_path / f"{name}.npz")
        assert "\n" not in str(caught.value), name
    with pytest.raises(FileNotFoundError, match="there is no graph"):
        graph(surroundings, tmp_path / "nowhere.npz")
    with pytest.raises(ValueError, match="the graph has no file"):
        build_neighbourhood("graph", surroundings())
