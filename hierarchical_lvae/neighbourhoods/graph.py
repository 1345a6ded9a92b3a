"""A graph of one's own as neighbourhood: graph:FILE.

FILE is what `scipy.sparse.save_npz` writes of an (n, n) matrix whose stored entries are edges, such as scikit-learn's
`kneighbors_graph` gives; or an `.npz` of one whole-number array (n, M): the ids of each point's M neighbours.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hierarchical_lvae.neighbourhoods.build import Neighbourhood, Surroundings, gather


class Graph(Neighbourhood):
    """K of the query's neighbours in the graph, distinct; drawn at random where there are more.

    An edge from a point to itself does not count. The graph becomes part of the checkpoint.

    Raises:
        ValueError: the file is not such a graph, or a point has fewer than K neighbours.
        FileNotFoundError: there is no such file.
    """

    def __init__(self, surroundings: Surroundings, argument: str = "") -> None:
        if not argument:
            raise ValueError("the graph has no file: --neighbourhood graph:FILE")
        self.surroundings, self.path = surroundings, Path(argument)
        self.state = {}

    def prepare(self) -> None:
        """Read the file."""
        if not self.state:
            number = len(self.surroundings.data)
            starts, ids = _read(self.path, number)
            degrees, wanted = np.diff(starts), self.surroundings.num_neighbours
            if degrees.min() < wanted:
                raise ValueError(
                    f"point {degrees.argmin()} has {degrees.min()} neighbours in {self.path}, and K is {wanted}: "
                    "lower -K, or add edges"
                )
            self.state = {"starts": torch.from_numpy(starts), "ids": torch.from_numpy(ids)}

    def __call__(self, index: Tensor, x: Tensor) -> Tensor:
        """Draw neighbours (B, K, C, H, W)."""
        self.prepare()
        starts, ids = self.state["starts"], self.state["ids"]
        rows = []
        for own in index.cpu():
            edges = ids[starts[own] : starts[own + 1]]
            rows.append(edges[torch.randperm(len(edges))[: self.surroundings.num_neighbours]])
        return gather(self.surroundings.data, torch.stack(rows).long().to(x.device), x)


def _read(path: Path, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The edges of all points one after the other, and where those of each begin: (n + 1,), (E,)."""
    from scipy.sparse import csr_array

    if not path.is_file():
        raise FileNotFoundError(f"there is no graph {path}: --neighbourhood graph:FILE takes an .npz")
    rows, ids = _edges(path, number)
    if ids.size and not 0 <= ids.min() <= ids.max() < number:
        raise ValueError(f"{path} has edges to points {ids.min()} … {ids.max()}: the data have 0 … {number - 1}")
    other = rows != ids
    ones = np.ones(int(other.sum()), np.int32)
    graph = csr_array((ones, (rows[other], ids[other])), shape=(number, number))  # an edge twice counts once
    graph.sort_indices()
    return graph.indptr.astype(np.int64), graph.indices.astype(np.int32)


def _edges(path: Path, number: int) -> tuple[np.ndarray, np.ndarray]:
    from scipy.sparse import load_npz

    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: Any = {name: file[name] for name in file.files} if "format" not in file.files else None
        matrix = load_npz(path) if arrays is None else None
    except Exception as error:  # whatever a stranger's file raises
        raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error}): an .npz is needed") from error
    if matrix is not None:
        if matrix.shape != (number, number):
            raise ValueError(f"{path} is a graph of {matrix.shape} points: the data have {number}")
        coordinates = matrix.tocoo()
        return coordinates.row.astype(np.int64), coordinates.col.astype(np.int64)
    ids = next(iter(arrays.values())) if len(arrays) == 1 else None
    if ids is None or ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise ValueError(f"{path} is neither a sparse matrix nor one array (n, M) of whole numbers")
    if len(ids) != number:
        raise ValueError(f"{path} has neighbours of {len(ids)} points: the data have {number}")
    return np.repeat(np.arange(number), ids.shape[1]), ids.astype(np.int64).reshape(-1)
