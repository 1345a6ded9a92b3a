"""A graph of one's own as neighbourhood: graph:FILE.

FILE is what `scipy.sparse.save_npz` writes of an (n, n) matrix (csr, csc or coo) whose stored entries are edges, such
as scikit-learn's `kneighbors_graph` gives; or an `.npz` of one whole-number array (n, M): the ids of each point's M
neighbours. It is a stranger's: its arrays are read with their sizes checked, and scipy, which trusts indices, is given
none that point elsewhere.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hierarchical_lvae.data.npz import NpzArray, open_npz
from hierarchical_lvae.neighbourhoods.build import Neighbourhood, Surroundings, gather


class Graph(Neighbourhood):
    """K of the query's neighbours in the graph, distinct; drawn at random where there are more.

    An edge from a point to itself does not count. The graph becomes part of the checkpoint.

    Raises:
        ValueError: the file is not such a graph, or a point has fewer than K neighbours.
        FileNotFoundError: there is no such file.
    """

    kept = ("starts", "ids")

    def __init__(self, surroundings: Surroundings, argument: str = "") -> None:
        if not argument:
            raise ValueError("the graph has no file: `neighbourhood` graph:FILE")
        self.surroundings, self.path = surroundings, Path(argument)
        self.starts, self.ids = torch.empty(0), torch.empty(0)

    def prepare(self) -> None:
        """Read the file."""
        if not len(self.starts):
            number = len(self.surroundings.data)
            starts, ids = _read(self.path, number)
            degrees, wanted = np.diff(starts), self.surroundings.num_neighbours
            if degrees.min() < wanted:
                raise ValueError(
                    f"point {degrees.argmin()} has {degrees.min()} neighbours in {self.path}, and K is {wanted}: "
                    "lower `num_neighbours`, or add edges"
                )
            self.starts, self.ids = torch.from_numpy(starts), torch.from_numpy(ids)

    def __call__(self, index: Tensor, x: Tensor) -> Tensor:
        """Draw neighbours (B, K, C, H, W)."""
        self.prepare()
        rows = []
        for own in index.cpu():
            edges = self.ids[self.starts[own] : self.starts[own + 1]]
            rows.append(edges[torch.randperm(len(edges))[: self.surroundings.num_neighbours]])
        return gather(self.surroundings.data, torch.stack(rows).long().to(x.device), x)


def _read(path: Path, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The edges of all points one after the other, and where those of each begin: (n + 1,), (E,)."""
    from scipy.sparse import csr_array

    if not path.is_file():
        raise FileNotFoundError(f"there is no graph {path}: `neighbourhood` graph:FILE takes an .npz")
    rows, ids = _edges(path, number)
    for ends in (rows, ids):
        if ends.size and not 0 <= ends.min() <= ends.max() < number:
            raise ValueError(f"{path} has edges to points {ends.min()} … {ends.max()}: the data have 0 … {number - 1}")
    other = rows != ids
    ones = np.ones(int(other.sum()), np.int32)
    graph = csr_array((ones, (rows[other], ids[other])), shape=(number, number))  # an edge twice counts once
    graph.sort_indices()
    return graph.indptr.astype(np.int64), graph.indices.astype(np.int32)


def _edges(path: Path, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The two ends (E,), (E,) of each edge that the file tells, unchecked."""
    try:
        with open_npz(path) as arrays:
            if "format" in arrays:
                return _sparse(arrays, path, number)
            ids = next(iter(arrays.values())) if len(arrays) == 1 else None
            if ids is None or len(ids.shape) != 2 or ids.dtype.kind not in "iu":
                raise ValueError(f"{path} is neither a sparse matrix nor one array (n, M) of whole numbers")
            if ids.shape[0] != number:
                raise ValueError(f"{path} has neighbours of {ids.shape[0]} points: the data have {number}")
            return np.repeat(np.arange(number), ids.shape[1]), ids.whole().astype(np.int64).reshape(-1)
    except MemoryError as error:
        raise ValueError(f"the graph {path} does not fit into memory: give a smaller one") from error


def _sparse(arrays: Mapping[str, NpzArray], path: Path, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of the stored entries, of the arrays that `scipy.sparse.save_npz` writes."""
    kind = arrays["format"].whole().astype(str).item() if arrays["format"].dtype.kind in "SU" else None
    names = {"csr": ("indptr", "indices"), "csc": ("indptr", "indices"), "coo": ("row", "col")}.get(str(kind))
    if names is None:
        raise ValueError(f"{path} is a sparse matrix of format {kind!r}: save it as csr, csc or coo")
    read = {}
    for name in ("shape", *names):
        if name not in arrays or len(arrays[name].shape) != 1 or arrays[name].dtype.kind not in "iu":
            raise ValueError(f"{path} has no {name!r} of whole numbers, as a sparse matrix has: save it anew")
        read[name] = arrays[name].whole().astype(np.int64)
    if read["shape"].tolist() != [number, number]:
        raise ValueError(f"{path} is a graph of {tuple(read['shape'].tolist())} points: the data have {number}")
    first, second = (read[name] for name in names)
    if kind != "coo":
        degrees = np.diff(first)
        if len(first) != number + 1 or first[0] != 0 or (degrees < 0).any() or first[-1] != len(second):
            raise ValueError(f"{path} has an 'indptr' that does not fit its 'indices': save it anew")
        first = np.repeat(np.arange(number), degrees)
    if len(first) != len(second):
        raise ValueError(f"{path} has {len(first)} rows and {len(second)} columns: save it anew")
    return (second, first) if kind == "csc" else (first, second)
