"""Types and helpers shared by the subpackages: the local loss ℓ_N, local inference, penalties and random states."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

if TYPE_CHECKING:  # subpackages without a Pyro program, such as `data`, must not import Pyro
    from pyro.distributions import TorchDistribution
    from torch import Tensor

    from hierarchical_lvae.layout import ParameterLayout


class Observation(NamedTuple):
    """One factor of the likelihood in ℓ_N."""

    distribution: TorchDistribution
    """p(x | z, θ_N), batch shape (B, K); its parameters are part of the loss's autograd graph."""
    value: Tensor
    """x, the data."""
    weight: Tensor | float
    """Weight of its log density in ℓ_N, from masks, scales and the number of particles: (B, K), or a scalar."""


class Latent(NamedTuple):
    """A latent site with one value per point, such as the code z, at one draw."""

    posterior: TorchDistribution
    """q(z | x, φ_N), batch shape (B, K)."""
    value: Tensor
    """The draw."""
    kl: Tensor
    """KL(q(z | x, φ_N) ‖ p(z)) of each point, unweighted: (B, K), in nats."""


class LocalLossAt(NamedTuple):
    """The local loss at one set of local values: the input to local inference."""

    loss: Tensor
    """ℓ_N, the negative ELBO summed over the K points of each neighbourhood: (B,), in nats."""
    values: dict[str, Tensor]
    """The local values at which ℓ_N was evaluated, by site: (B, 1, P), part of the loss's autograd graph."""
    prior: dict[str, TorchDistribution]
    """The prior of each of these sites, a Normal centred on the meta-parameters: batch (B, 1), event (P,)."""
    parameters: dict[str, ParameterLayout | None]
    """The local sites that occur in the model, θ_N, each with the layout that the program declares for it (or None).
    The other local sites are variational parameters, φ_N, and stay point estimates in every method."""
    observations: tuple[Observation, ...]
    """The observed sites of the model."""
    latent: dict[str, Latent]
    """The latent sites of the points in the model, by name."""
    num_neighbours: int | None = None
    """The K for which the prior variance τ² = α / (K·C·H·W) was set, if the program declares it."""


class LocalLoss(Protocol):
    """ℓ_N as a function of the local values of all B neighbourhoods at once."""

    differentiable: bool
    """Whether gradients must flow through the result of the inference to the meta-parameters."""

    def __call__(self, values: Mapping[str, Tensor] | None = None) -> LocalLossAt:
        """Evaluate ℓ_N at `values`, (B, 1, P) by site; a site without a value is set to its prior mean."""
        ...


class LocalInference(Protocol):
    """Infers the local parameters of B neighbourhoods from their local loss.

    An implementation that reads values on the host (as linear algebra does) sets the attribute `capturable = False`: a
    training step that contains it can be neither captured in a CUDA graph nor compiled.
    """

    def __call__(self, local_loss: LocalLoss) -> dict[str, TorchDistribution]:
        """Return q(θ_N | N) for each local site: batch shape (B, 1), event shape (P,).

        A site that is missing from the result stays at its prior mean, the meta-parameter.
        """
        ...


class Codes(NamedTuple):
    """The codes of a batch in the outer pass: n points, D independent dimensions."""

    mean: Tensor
    """μ of q(z | x, φ_N) = Normal(μ, σ²): (n, D)."""
    scale: Tensor
    """σ: (n, D)."""
    value: Tensor
    """One draw of each code: (n, D)."""
    kl: Tensor
    """KL(q(z | x, φ_N) ‖ p(z)) of each point: (n,), in nats."""


class Stateful(Protocol):
    """State that a resumed fit needs, saved and restored like that of PyTorch's modules and optimizers."""

    kept: ClassVar[tuple[str, ...]] = ()
    """Names of the tensor attributes that make up the state."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as tensors by name, for the checkpoint."""
        return {name: getattr(self, name) for name in self.kept}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Restore the state that `state_dict` returned; attributes missing from it are unchanged."""
        vars(self).update({name: tensor.clone() for name, tensor in state_dict.items() if name in self.kept})


class Penalty(Stateful, Protocol):
    """An additional term of the global loss, computed from the codes of a batch; see `hierarchical_lvae.penalties`.

    A penalty that reads values on the host sets `capturable = False`, as a `LocalInference` does. `update` always runs
    outside the CUDA graph.
    """

    capturable: ClassVar[bool] = True
    """Whether a CUDA graph can contain the penalty."""
    replaces_kl: ClassVar[bool] = False
    """Whether the penalty replaces β KL(q(z | x, φ_N) ‖ p(z)) of the queries instead of being added to it."""

    def __call__(self, codes: Codes) -> Tensor:
        """Return the penalty, a differentiable scalar in nats per image."""
        ...

    def update(self) -> None:
        """Update the state; `fit` and `LocalELBO.loss_and_grads` call this once per step, after the gradients."""
        return


class Diverged(ArithmeticError):
    """Training produced a non-finite number."""


class Interrupted(Exception):
    """A signal stopped training, after a checkpoint was saved."""

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(signal, message)  # both, or a worker process cannot pickle it
        self.signal, self.message = signal, message

    def __str__(self) -> str:
        return self.message


def reason(error: BaseException) -> str:
    """Return the cause of an error in one line, with its type if the message was not written for users.

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
    """Suggest the closest of `names`, or list them all if none is close.

    >>> suggestion("one-stop", ["shared", "one-step"])
    "did you mean 'one-step'?"
    """
    names = list(names)
    near = difflib.get_close_matches(str(name), names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(names)}"


def separated(names: str, kind: str) -> tuple[str, ...]:
    """Split a list of names at its commas, except at those in brackets; errors call the list a `kind`.

    >>> separated("9.weight[:,0], 9.bias", "block")
    ('9.weight[:,0]', '9.bias')

    Raises:
        ValueError: a name is empty.
    """
    parts = tuple(part.strip() for part in re.split(r",(?![^\[]*\])", names))
    if "" in parts:
        raise ValueError(f"{kind} {names!r} has an empty name: give one or more names, separated by single commas")
    return parts


def check_name(kind: str, name: str, names: Iterable[str]) -> None:
    """Check that `name` is one of `names`; errors call it a `kind`.

    Raises:
        ValueError: it is not; the message suggests the closest one.
    """
    if name not in (names := [*names]):
        raise ValueError(f"no {kind} is called {name!r}: {suggestion(name, names)}")


def lookup(table: Mapping[str, str], name: str, kind: str) -> Any:
    """Import the entry `name` of a table of "module:attribute" strings; errors call an entry a `kind`.

    >>> lookup({"root": "math:sqrt"}, "root", "function")(9)
    3.0

    Raises:
        ValueError: there is no such name; the message suggests the closest one.
    """
    check_name(kind, name, table)
    return resolve_name(table[name])


def accepted(function: Callable[..., Any], **given: Any) -> dict[str, Any]:
    """Return those of the arguments `given` that the function has a parameter for, by name.

    >>> accepted(round, ndigits=1, seed=0)
    {'ndigits': 1}
    """
    return {name: value for name, value in given.items() if name in signature(function).parameters}


def check_object(name: str, value: Any, arguments: int, needed: str) -> None:
    """Check that a value is an object to call with so many arguments, not a class to build one with, or its name.

    >>> check_object("local", dict, 1, "a local inference object, such as OneStepMAP()")
    Traceback (most recent call last):
    TypeError: local is the class dict: give a local inference object, such as OneStepMAP()

    Raises:
        TypeError: it is not such an object.
    """
    if callable(value) and not isinstance(value, type):
        try:
            signature(value).bind(*[None] * arguments)
        except ValueError:  # a builtin function may have no signature
            return
        except TypeError:
            pass
        else:
            return
    given = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
    raise TypeError(f"{name} is {given}: give {needed}")


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore PyTorch's random states on exit, on all devices in use."""
    import torch

    on_cuda, seed = torch.cuda.is_initialized(), torch.initial_seed()
    on_mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    with torch.random.fork_rng(range(torch.cuda.device_count()) if on_cuda else ()):
        yield
    if on_mps is not None:
        torch.mps.set_rng_state(on_mps)
    elif not on_cuda:
        torch.cuda.manual_seed_all(seed)  # also takes effect if CUDA is first used later; does not initialise it


@contextmanager
def single_precision() -> Iterator[None]:
    """Make float32, in which runs are computed, the default dtype, whatever the caller's default is.

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


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Evaluate a model: seeded, in single precision and without gradients; restores all of these on exit.

    Validation is off: a σ that underflows to 0 in single precision is harmless, and a diverged fit shows in the result.
    """
    import pyro
    import torch

    with random_state_kept(), single_precision(), torch.no_grad(), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        yield
