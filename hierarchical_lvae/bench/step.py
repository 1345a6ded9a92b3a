"""The cost of a meta-step in plain-VAE steps, for our code and for other ways to differentiate through a step.

    plain                 one step of the plain VAE (α = 0) on B·K images: forward, backward, Adam
    local-second-order    the Local VAE's step, with `LocalELBO(OneStepMAP())`
    local-first-order     the same, without differentiating through the inner step
    laplace               second order, with a diagonal Gaussian local posterior
    loop                  an explicit loop over the B neighbourhoods, with `torch.func.functional_call`
    higher, torchopt      the same loop with these libraries, if they are installed

All methods take turns in one process, because the machine may be busy with other work. Times are medians, after one
warm-up round.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hierarchical_lvae import progress
from hierarchical_lvae.inference import LocalELBO, OneStepMAP, Shared
from hierarchical_lvae.inference.laplace import laplace_diagonal
from hierarchical_lvae.models import LocalVAE
from hierarchical_lvae.models.layers import Conv, Linear, Reshape, UpConv
from hierarchical_lvae.models.networks import Network
from hierarchical_lvae.runs.devices import resolve_device
from hierarchical_lvae.training.memory import check_step_fits, give_back_freed_memory

ALPHA, LR = 1.0, 1e-4
METHODS = ("plain", "local-second-order", "local-first-order", "laplace", "loop", "higher", "torchopt")
Step = Callable[[], None]


class Timing(NamedTuple):
    """Time and memory of one method's step."""

    seconds: float
    """The median."""
    ratio: float
    """Seconds divided by those of "plain"."""
    peak_gib: float | None
    """Peak memory during a step, including everything else in the process; None if it is not known."""


def bench(
    batch: int,
    num_neighbours: int,
    image_shape: tuple[int, int, int],
    rounds: int,
    device: str = "cpu",
    seed: int = 0,
    methods: Sequence[str] = METHODS,
) -> dict[str, Timing | None]:
    """Time a step of each method on random images: timings by name, None where a library is not installed.

    Args:
        batch, num_neighbours: B and K.
        image_shape: (C, H, W).
        rounds: how many steps of each method to time.
        device: where to compute.
        seed: for the images and weights.
        methods: which to time; "plain" must be among them.

    Raises:
        MemoryError: a step does not fit into memory.
    """
    device = resolve_device(device)
    check_step_fits(batch, num_neighbours, image_shape, device)
    torch.manual_seed(seed)
    query = torch.rand(batch, *image_shape, device=device)
    support = torch.rand(batch, num_neighbours, *image_shape, device=device).bernoulli()
    steps = {name: _step(name, query, support) for name in methods if _installed(name)}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    peaks: dict[str, float | None] = {}
    bar = progress.bar(total=(rounds + 1) * len(steps), unit="step", leave=False)
    with bar, pyro.validation_enabled(False), pyro.get_param_store().scope():
        for name, step in steps.items():  # warm-up, and peak memory
            bar.set_description(name)
            give_back_freed_memory()
            _forget_peak(device)
            step()
            _wait(device)
            peaks[name] = _peak(device)
            bar.update()
        for _ in range(rounds):
            for name, step in steps.items():
                bar.set_description(name)
                start = time.perf_counter()
                step()
                _wait(device)
                seconds[name].append(time.perf_counter() - start)
                bar.update()
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    return {
        name: Timing(medians[name], medians[name] / medians["plain"], peaks[name]) if name in medians else None
        for name in methods
    }


def _installed(method: str) -> bool:
    return method not in ("higher", "torchopt") or find_spec(method) is not None


def _step(method: str, query: Tensor, support: Tensor) -> Step:
    """One meta-step on `query` (B, C, H, W) and `support` (B, K, C, H, W), as a function without arguments."""
    alpha = 0.0 if method == "plain" else ALPHA
    image_shape = (query.shape[1], query.shape[2], query.shape[3])
    vae = LocalVAE(alpha, support.shape[1], image_shape).to(query.device)
    ours: dict[str, Any] = {
        "plain": Shared(),
        "local-second-order": OneStepMAP(),
        "local-first-order": OneStepMAP(first_order=True),
        "laplace": laplace_diagonal(),
    }
    if method in ours:
        x = support if method == "plain" else query
        loss = partial(LocalELBO(ours[method]).differentiable_loss, vae.model, vae.guide, x, support)
        parameters = list(vae.parameters())
    else:
        module = PlainVAE(vae).to(query.device)
        loss = partial(PEERS[method], module, query, support, float(vae.tau) ** 2)
        parameters = list(module.parameters())
    optimizer = torch.optim.Adam(parameters, LR)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


# ------------------------------------------------------------------------------------ the peers: loops over tasks


class PlainVAE(nn.Module):
    """The networks of a Local VAE as PyTorch's own modules; maps images (n, C, H, W) to their loss in nats."""

    def __init__(self, vae: LocalVAE) -> None:
        super().__init__()
        self.encoder, self.decoder = _modules(vae.encoder), _modules(vae.decoder)

    def forward(self, x: Tensor) -> Tensor:
        """The negative ELBO, summed over the images."""
        mean, log_sigma = self.encoder(x).chunk(2, dim=1)
        logits = self.decoder(mean + log_sigma.exp() * torch.randn_like(mean))
        kl = 0.5 * (mean.square() + (2 * log_sigma).exp() - 2 * log_sigma - 1).sum()
        return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl


def _modules(network: Network) -> nn.Sequential:
    modules: list[nn.Module] = []
    for layer in network.layers:
        match layer:
            case Linear():
                modules.append(nn.Linear(layer.inputs, layer.outputs))
            case Conv():
                modules.append(nn.Conv2d(layer.inputs, layer.outputs, 4, 2, 1))
            case UpConv():
                odd = (layer.size[0] % 2, layer.size[1] % 2)
                modules.append(nn.ConvTranspose2d(layer.inputs, layer.outputs, 4, 2, 1, output_padding=odd))
            case Reshape():
                modules.append(nn.Flatten() if len(layer.shape) == 1 else nn.Unflatten(1, layer.shape))
            case _:
                modules.append(nn.ReLU())
    return nn.Sequential(*modules)


def _tasks(query: Tensor, support: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(query.split(1), support, strict=True)


def _loop(module: nn.Module, query: Tensor, support: Tensor, size: float) -> Tensor:
    meta: dict[str, Tensor] = dict(module.named_parameters())
    losses = []
    for x, x_N in _tasks(query, support):
        inner = torch.func.functional_call(module, meta, (x_N,))
        slopes = torch.autograd.grad(inner, list(meta.values()), create_graph=True)
        local = {name: p - size * g for (name, p), g in zip(meta.items(), slopes, strict=True)}
        losses.append(torch.func.functional_call(module, local, (x,)))
    return torch.stack(losses).sum()


def _higher(module: nn.Module, query: Tensor, support: Tensor, size: float) -> Tensor:
    import higher

    losses = []
    for x, x_N in _tasks(query, support):
        sgd = torch.optim.SGD(module.parameters(), size)
        with higher.innerloop_ctx(module, sgd, copy_initial_weights=False) as (local, optimizer):
            optimizer.step(local(x_N))
            losses.append(local(x))
    return torch.stack(losses).sum()


def _torchopt(module: nn.Module, query: Tensor, support: Tensor, size: float) -> Tensor:
    import torchopt

    optimizer = torchopt.MetaSGD(module, lr=size)
    start = [torchopt.extract_state_dict(part, by="reference") for part in (module, optimizer)]
    losses = []
    for x, x_N in _tasks(query, support):
        optimizer.step(module(x_N))
        losses.append(module(x))
        for part, state in zip((module, optimizer), start, strict=True):
            torchopt.recover_state_dict(part, state)
    return torch.stack(losses).sum()


PEERS = {"loop": _loop, "higher": _higher, "torchopt": _torchopt}


# ------------------------------------------------------------------------------------------------- time and memory


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()


def _forget_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets VmHWM


def _peak(device: str) -> float | None:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**30
    status = Path("/proc/self/status")
    return int(status.read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]) / 2**20 if status.exists() else None
