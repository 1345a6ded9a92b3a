"""What the rooms share: the local loss ℓ_N, the swappable object that infers from it, and the flat vector.

| name | what it is |
|---|---|
| `Observation` | a factor of the likelihood, for the curvature of ℓ_N |
| `LocalLoss` | ℓ_N as a function of the local values, of a model, a guide and a support set |
| `LocalInference` | ℓ_N ↦ q(θ_N given N) and φ_N: `Shared`, `OneStepMAP`, `MultiStepMAP`, `Laplace`, … |
| `Stateful` | what has a `state_dict` in the checkpoint: penalties and neighbourhoods |
| `Penalty` | a further term of the global loss, on the `Codes` of a batch: DIP, total correlation, … |
| `ParameterLayout` | where each weight lies in a flat vector: one network is one Pyro site of P numbers |
| `lookup` | an entry of a table of names, such as `DATASETS`; `accepted`, the arguments that it takes |
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from inspect import signature
from math import prod
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

if TYPE_CHECKING:  # rooms without a program, such as `data`, need not load Pyro
    from pyro.distributions import TorchDistribution
    from torch import Tensor


class Observation(NamedTuple):
    """A factor of the likelihood as it enters ℓ_N: what curvature is made of, without the data themselves."""

    distribution: TorchDistribution
    """p(x | z, θ_N): batch (B, K), its parameters part of the loss's graph."""
    weight: Tensor | float
    """How much its log density counts in ℓ_N: (B, K), or 1 throughout. A mask, a scale, one of several particles."""


class Latent(NamedTuple):
    """A latent site of the points, such as the code z, at one draw."""

    posterior: TorchDistribution
    """q(z | x, φ_N): batch (B, K)."""
    value: Tensor
    """The draw."""
    kl: Tensor
    """KL(q(z | x, φ_N) ‖ p(z)) of each point, not weighted: (B, K), in nats."""


class LocalLossAt(NamedTuple):
    """The local loss at one point: what inference on a neighbourhood has to go on."""

    loss: Tensor
    """ℓ_N, the negative ELBO summed over the K points of each neighbourhood: (B,), in nats."""
    values: dict[str, Tensor]
    """The local values at which it was taken, by site: (B, 1, P), part of the loss's graph."""
    prior: dict[str, TorchDistribution]
    """The Normal around the meta-parameters of each of these sites: batch (B, 1), event (P,)."""
    parameters: dict[str, ParameterLayout | None]
    """Those sites that the model has: θ_N, each with the layout that the program states for it (or None). The others
    are variational parameters, φ_N, and stay points in every method."""
    observations: tuple[Observation, ...]
    """The observed sites of the model."""
    latent: dict[str, Latent]
    """Its other sites, by name."""
    num_neighbours: int | None = None
    """K that the prior variance τ² = α / (K·C·H·W) is for, if the program states it."""


class LocalLoss(Protocol):
    """ℓ_N as a function of the local values of all B neighbourhoods at once."""

    differentiable: bool
    """Whether gradients are to flow on through the result of the inference, to the meta-parameters."""

    def __call__(self, values: Mapping[str, Tensor] | None = None) -> LocalLossAt:
        """Evaluate ℓ_N at `values` ((B, 1, P) by site), or at the prior means where there are none."""
        ...


class LocalInference(Protocol):
    """Infers the local parameters of B neighbourhoods from their local loss.

    One that reads values on the host (as linear algebra does) has the attribute `capturable = False`: a step that
    contains it cannot be replayed on a GPU, nor compiled.
    """

    def __call__(self, local_loss: LocalLoss) -> dict[str, TorchDistribution]:
        """Return q(θ_N | N) for each local site: batch (B, 1), event (P,).

        A site that is left out stays at its prior mean, the meta-parameter.
        """
        ...


class Codes(NamedTuple):
    """What the outer pass saw of the codes of a batch: n points, D independent dimensions."""

    mean: Tensor
    """μ of q(z | x, φ_N) = Normal(μ, σ²): (n, D)."""
    scale: Tensor
    """σ: (n, D)."""
    value: Tensor
    """Draws from these: (n, D)."""
    kl: Tensor
    """KL(q(z | x, φ_N) ‖ p(z)): (n,), in nats."""


class Stateful(Protocol):
    """What a resumed fit continues with, saved and restored as PyTorch's modules and optimizers are."""

    kept: ClassVar[tuple[str, ...]] = ()
    """The attributes that make up the state: tensors."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as tensors by name: part of the checkpoint."""
        return {name: getattr(self, name) for name in self.kept}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Put back what `state_dict` gave; an attribute that is missing stays as it is."""
        vars(self).update({name: tensor.clone() for name, tensor in state_dict.items() if name in self.kept})


class Penalty(Stateful, Protocol):
    """A further term of the global loss, on the codes of a batch: see `hierarchical_lvae.penalties`."""

    replaces_kl: ClassVar[bool] = False
    """Whether it stands in place of β KL(q(z | x, φ_N) ‖ p(z)) of the queries, and not beside it."""

    def __call__(self, codes: Codes) -> Tensor:
        """Its value: a scalar to differentiate, in nats an image."""
        ...

    def update(self) -> None:
        """Called once per training step, after the gradients, by `fit` and by `LocalELBO.loss_and_grads`."""
        return


class ParameterLayout:
    """Where each named parameter lies in a flat vector of `size` = P numbers.

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
        """Where the parameters whose names match a pattern of `names` lie in the flat vector: (p,), ascending.

        "last" is the last layer.

        >>> layout = ParameterLayout({"0.weight": (2, 3), "0.bias": (2,), "2.weight": (1, 2), "2.bias": (1,)})
        >>> layout.positions("*.bias"), layout.positions("last")
        (tensor([ 6,  7, 10]), tensor([ 8,  9, 10]))

        Raises:
            ValueError: none matches.
        """
        import torch

        last = list(self.shapes)[-1].rpartition(".")[0] + ".*"
        patterns = [last if name == "last" else name for name in names]
        chosen = torch.zeros(self.size, dtype=torch.bool)
        for name, part in self.split(chosen).items():
            part.fill_(any(fnmatchcase(name, pattern) for pattern in patterns))
        if not chosen.any():
            raise ValueError(f"no parameter matches {' or '.join(names)}: there are {', '.join(self.shapes)}")
        return chosen.nonzero().squeeze(1)

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Cut `flat` (..., P) into views (..., *shape) by name.

        One `split` and no slices: the backward pass of a slice fills a full-size zero tensor each time.
        """
        pieces = flat.split(self._sizes, dim=-1)
        return {n: p.unflatten(-1, s) for (n, s), p in zip(self.shapes.items(), pieces, strict=True)}


class Diverged(ArithmeticError):
    """Training has left the finite numbers."""


class Interrupted(Exception):
    """A signal has ended the training, after a checkpoint."""

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal


def reason(error: BaseException) -> str:
    """Say in one line why something failed; the type is named where the message was not written for users.

    >>> reason(ValueError("no such\\nfactor")), reason(KeyError("dci"))
    ('no such factor', "unexpected KeyError: 'dci'")
    >>> reason(FileNotFoundError(2, "No such file or directory", "a.npz"))
    'a.npz: No such file or directory'
    """
    said = str(error)
    if isinstance(error, OSError) and error.filename is not None and said.startswith("[Errno"):
        said = f"{error.filename}: {error.strerror}"
    elif not isinstance(error, OSError | ValueError):
        said = f"unexpected {type(error).__name__}: {said}"
    return " ".join(said.split())


def suggestion(name: str, names: Iterable[str]) -> str:
    """Suggest the nearest of `names`, or list them.

    >>> suggestion("one-stop", ["shared", "one-step"])
    "did you mean 'one-step'?"
    """
    names = list(names)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"


def lookup(table: Mapping[str, str], name: str, kind: str) -> Any:
    """Import the entry `name` of a table of "module:attribute" strings; `kind` says what it is a table of.

    >>> lookup({"root": "math:sqrt"}, "root", "function")(9)
    3.0

    Raises:
        ValueError: there is no such name; the nearest is suggested.
    """
    if name not in table:
        raise ValueError(f"no {kind} is called {name!r}: {suggestion(name, table)}")
    return resolve_name(table[name])


def accepted(function: Callable[..., Any], **given: Any) -> dict[str, Any]:
    """Those of the arguments `given` that a function has a parameter for, by name.

    >>> accepted(round, ndigits=1, seed=0)
    {'ndigits': 1}
    """
    return {name: value for name, value in given.items() if name in signature(function).parameters}


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Leave PyTorch's random states, on all devices that are in use, as they were."""
    import torch

    if torch.cuda.is_initialized():
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
        return
    seed = torch.initial_seed()
    with torch.random.fork_rng(()):
        yield
    torch.cuda.manual_seed_all(seed)  # for when a GPU is first used, or was inside; it is not started by this


@contextmanager
def single_precision() -> Iterator[None]:
    """Make float32 the default type, which runs are computed in, whatever the caller's default is.

    >>> import torch
    >>> with single_precision():
    ...     torch.get_default_dtype()
    torch.float32
    """
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
