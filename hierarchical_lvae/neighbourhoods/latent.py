"""k nearest neighbours in the space of codes (§ 3.1, CarsNORB), with codes that are updated at every iteration.

A bank (n, D) holds the codes of all points, computed with the encoder's meta-parameters. Each step updates the codes of
its batch in place, and the K nearest codes are searched in the current bank without an index. So "every iteration"
applies to the points of the batch; points not seen for a while keep codes of an older encoder, unless all codes are
recomputed at regular intervals (`refresh`).
"""

from typing import Any

import torch
from torch import Tensor

from hierarchical_lvae import progress
from hierarchical_lvae.neighbourhoods.build import Neighbourhood, Surroundings, gather, without_self

CHUNK = 1_000


class NearestCodes(Neighbourhood):
    """The K points whose codes are nearest to the query's, by Euclidean distance."""

    kept = ("codes", "steps")

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self.codes, self.steps = torch.empty(0), torch.tensor(0)

    def prepare(self) -> None:
        """Encode all points, unless the codes were restored."""
        if not len(self.codes):
            self.codes = self._encode_all()

    def update(self, index: Tensor, x: Tensor) -> None:
        """Update the codes of x (B, C, H, W), or of all points every `refresh` steps."""
        self.prepare()
        self.steps += 1
        refresh = self.surroundings.refresh
        if refresh and self.steps % refresh == 0:
            self.codes = self._encode_all()
        else:
            self._bank(x.device)[index] = self._encode(x)

    def __call__(self, index: Tensor, x: Tensor) -> Tensor:
        """Neighbours (B, K, C, H, W), nearest first, according to the codes in the bank."""
        codes, number = self._bank(x.device), self.surroundings.num_neighbours
        ids = nearest_codes(codes[index], codes, number + 1)
        return gather(self.surroundings.data, without_self(ids, index, number), x)

    def _bank(self, device: torch.device) -> Tensor:
        """The codes, on the device of the images: a checkpoint restores them on the CPU."""
        self.prepare()
        self.codes = self.codes.to(device)
        return self.codes

    @torch.no_grad()
    def _encode(self, x: Tensor) -> Tensor:
        return self.surroundings.encode(x).float()

    def _encode_all(self) -> Tensor:
        data = self.surroundings.data
        parts = torch.arange(len(data)).split(CHUNK)
        bar = progress.bar(parts, "codes of all points", unit="k", leave=False, delay=2)
        return torch.cat([self._encode(data.batch(part)) for part in bar])


def nearest_codes(queries: Tensor, points: Tensor, number: int) -> Tensor:
    """The ids (B, number) of the points (n, D) nearest to the queries (B, D), nearest first. Uses Faiss on a CPU.

    >>> nearest_codes(torch.tensor([[0.9]]), torch.tensor([[0.0], [5.0], [1.0]]), 2)
    tensor([[2, 0]])
    """
    if points.device.type != "cpu":
        distances = torch.cdist(queries, points, compute_mode="donot_use_mm_for_euclid_dist")
        return distances.topk(number, largest=False).indices
    import faiss

    ids: Any = faiss.knn(queries.contiguous().numpy(), points.contiguous().numpy(), number)[1]
    return torch.from_numpy(ids)
