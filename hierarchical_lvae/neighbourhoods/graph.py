"""A user's graph as the neighbourhood: graph:FILE.

FILE is an (n, n) matrix in csr, csc or coo format written by `scipy.sparse.save_npz`, whose stored entries are edges,
such as the result of scikit-learn's `kneighbors_graph`; or an `.npz` file with one integer array (n, M), the ids of
each point's M neighbours. The file is untrusted: the sizes of its arrays are checked, and so are its indices, because
scipy does not check them.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hierarchical_lvae.data.npz import NpzArray, open_npz
from hierarchical_lvae.neighbourhoods.build import Neighbourhood, Surroundings, distinct, gather


class Graph(Neighbourhood):
    """K distinct neighbours of the query in the graph, drawn at random if there are more.

    Edges from a point to itself are ignored. The graph becomes part of the checkpoint.

    Raises:
        ValueError: no file is given, the file is not such a graph, or a point has fewer than K neighbours.
        FileNotFoundError: there is no such file.
    """

    kept = ("starts", "ids")
    capturable = True

    def __init__(self, surroundings: Surroundings, argument: str = "") -> None:
        if not argument:
            raise ValueError("the graph has no file: give `neighbourhood` as graph:FILE")
        self.surroundings, self.path = surroundings, Path(argument)
        self.starts, self.ids = torch.empty(0), torch.empty(0)

    def prepare(self) -> None:
        """Read the file, unless the graph was restored."""
        if not len(self.starts):
            number = len(self.surroundings.data)
            starts, ids = _read(self.path, number)
            degrees, wanted = np.diff(starts), self.surroundings.num_neighbours
            if degrees.min() < wanted:
                raise ValueError(
                    f"point {degrees.argmin()} has {degrees.min()} neighbours in {self.path}, but K is {wanted}: "
                    "lower `num_neighbours`, or add edges"
                )
            self.starts, self.ids = torch.from_numpy(starts), torch.from_numpy(ids)

    def check(self) -> None:
        """Read the file."""
        self.prepare()

    def __call__(self, index: Tensor, x: Tensor) -> Tensor:
        """Draw neighbours (B, K, C, H, W)."""
        self.prepare()
        self.starts, self.ids = self.starts.to(x.device), self.ids.to(x.device)
        first = self.starts[index]
        chosen = distinct(self.starts[index + 1] - first, self.surroundings.num_neighbours)
        return gather(self.surroundings.data, self.ids[first[:, None] + chosen].long(), x)


def _read(path: Path, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each point's edges start, (n + 1,), and the edges of all points, (E,), as in csr."""
    from scipy.sparse import csr_array

    if not path.is_file():
        raise FileNotFoundError(f"there is no graph {path}: give `neighbourhood` as graph:FILE, with an .npz file")
    rows, ids = _edges(path, number)
    for ends in (rows, ids):
        if ends.size and not 0 <= ends.min() <= ends.max() < number:
            raise ValueError(
                f"{path} has edges to points {ends.min()} … {ends.max()}, but the data have points 0 … {number - 1}: "
                "build the graph from these data"
            )
    other = rows != ids
    ones = np.ones(int(other.sum()), np.int32)
    graph = csr_array((ones, (rows[other], ids[other])), shape=(number, number))  # merges duplicate edges
    graph.sort_indices()
    return graph.indptr.astype(np.int64), graph.indices.astype(np.int32)


def _edges(path: Path, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The two ends (E,), (E,) of each edge in the file, unchecked."""
    try:
        with open_npz(path) as arrays:
            if "format" in arrays:
                return _sparse(arrays, path, number)
            ids = next(iter(arrays.values())) if len(arrays) == 1 else None
            if ids is None or len(ids.shape) != 2 or ids.dtype.kind not in "iu":
                raise ValueError(
                    f"{path} is neither a sparse matrix nor one integer array (n, M): save it with "
                    "scipy.sparse.save_npz, or as the ids of each point's neighbours"
                )
            if ids.shape[0] != number:
                raise ValueError(
                    f"{path} has neighbours of {ids.shape[0]} points, but the data have {number}: build the graph from "
                    "these data"
                )
            return np.repeat(np.arange(number), ids.shape[1]), ids.whole().astype(np.int64).reshape(-1)
    except MemoryError as error:
        raise ValueError(f"the graph {path} does not fit into memory: give a smaller one") from error


def _sparse(arrays: Mapping[str, NpzArray], path: Path, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of the stored entries, from the arrays that `scipy.sparse.save_npz` writes."""
    kind = arrays["format"].whole().astype(str).item() if arrays["format"].dtype.kind in "SU" else None
    names = {"csr": ("indptr", "indices"), "csc": ("indptr", "indices"), "coo": ("row", "col")}.get(str(kind))
    if names is None:
        raise ValueError(f"{path} is a sparse matrix of format {kind!r}: save it as csr, csc or coo")
    read = {}
    for name in ("shape", *names):
        if name not in arrays or len(arrays[name].shape) != 1 or arrays[name].dtype.kind not in "iu":
            raise ValueError(f"{path} lacks the integer array {name!r} of a sparse matrix: save it again")
        read[name] = arrays[name].whole().astype(np.int64)
    if read["shape"].tolist() != [number, number]:
        raise ValueError(
            f"{path} has shape {tuple(read['shape'].tolist())}, but the data have {number} points: build the graph "
            "from these data"
        )
    first, second = (read[name] for name in names)
    if kind != "coo":
        degrees = np.diff(first)
        if len(first) != number + 1 or first[0] != 0 or (degrees < 0).any() or first[-1] != len(second):
            raise ValueError(f"{path} has an 'indptr' that does not match its 'indices': save it again")
        first = np.repeat(np.arange(number), degrees)
    if len(first) != len(second):
        raise ValueError(f"{path} has {len(first)} row and {len(second)} column indices: save it again")
    return (second, first) if kind == "csc" else (first, second)
