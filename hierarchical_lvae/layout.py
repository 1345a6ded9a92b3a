"""Where each weight of a network lies in its flat vector: a network is one Pyro site with P entries."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import prod

import torch
from torch import Tensor


class ParameterLayout:
    """The position of each named parameter in a flat vector of `size` = P numbers.

    >>> import torch
    >>> layout = ParameterLayout({"weight": (2, 3), "bias": (2,)})
    >>> layout.size
    8
    >>> parts = layout.split(torch.arange(8.0).expand(5, 8))
    >>> parts["weight"].shape, parts["bias"][0].tolist()
    (torch.Size([5, 2, 3]), [6.0, 7.0])
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = dict(shapes)
        self._sizes = [prod(shape) for shape in self.shapes.values()]
        self.size = sum(self._sizes)

    def positions(self, *names: str) -> Tensor:
        """Positions in the flat vector of the parameters that match any of the patterns `names`: (p,), ascending.

        The pattern "last" stands for the last layer. An index selects entries: "2.weight[:,0]".

        >>> layout = ParameterLayout({"0.weight": (2, 3), "0.bias": (2,), "2.weight": (1, 2), "2.bias": (1,)})
        >>> layout.positions("*.bias"), layout.positions("last"), layout.positions("0.weight[:,0]", "0.bias[1]")
        (tensor([ 6,  7, 10]), tensor([ 8,  9, 10]), tensor([0, 3, 7]))

        Raises:
            ValueError: a pattern matches no parameter, or its index does not fit.
        """
        last = list(self.shapes)[-1].rpartition(".")[0] + ".*"
        chosen = torch.zeros(self.size, dtype=torch.bool)
        parts = self.split(chosen)
        for pattern in map(str.strip, names):
            name, bracket, index = pattern.partition("[") if pattern.endswith("]") else (pattern, "", "")
            matches = [n for n in self.shapes if fnmatchcase(n, last if name == "last" else name)]
            if not matches and bracket:  # a class of characters, as in "*.[bw]*[ts]"
                matches, bracket = [n for n in self.shapes if fnmatchcase(n, pattern)], ""
            if not matches:
                raise ValueError(f"no parameter matches {pattern}: choose from {', '.join(self.shapes)}")
            for match in matches:
                try:
                    parts[match][_entries(index[:-1]) if bracket else ...] = True
                except (IndexError, ValueError, RuntimeError):
                    raise ValueError(
                        f"the index of {pattern} must be numbers or `:`, separated by commas, and lie within {match}, "
                        f"whose shape is {self.shapes[match]}"
                    ) from None
        return chosen.nonzero().squeeze(1)

    def channels(self) -> list[tuple[str, ...]]:
        """The patterns of the parameters of each output channel of the last layer.

        The channels of a transposed convolution's weight are its second dimension, those of a matrix its first.

        >>> ParameterLayout({"9.weight": (32, 2, 4, 4), "9.bias": (2,)}).channels()
        [('9.weight[:,0]', '9.bias[0]'), ('9.weight[:,1]', '9.bias[1]')]

        Raises:
            ValueError: the last layer has no weight.
        """
        layer = list(self.shapes)[-1].rpartition(".")[0]
        if f"{layer}.weight" not in self.shapes:
            raise ValueError(f"the last layer has no weight, only {list(self.shapes)[-1]}: it has no channels")
        shape = self.shapes[f"{layer}.weight"]
        before, number = (":,", shape[1]) if len(shape) > 2 else ("", shape[0])
        biases = f"{layer}.bias" in self.shapes
        return [(f"{layer}.weight[{before}{c}]", *[f"{layer}.bias[{c}]"] * biases) for c in range(number)]

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Split `flat` (..., P) into views (..., *shape) by name.

        This uses a single `split` because the backward pass of each slice would fill a full-size tensor with zeros.
        """
        pieces = flat.split(self._sizes, dim=-1)
        return {n: p.unflatten(-1, s) for (n, s), p in zip(self.shapes.items(), pieces, strict=True)}


def _entries(index: str) -> tuple[int | slice, ...]:
    """The index of a tensor, from text such as ":,0"."""
    return tuple(slice(None) if part.strip() == ":" else int(part) for part in index.split(","))
