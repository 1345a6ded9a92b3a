"""Training: options, Algorithm 1 as one flat loop, and the trained run.

fit(FitOptions.of(dataset="3dshapes", preset="quick"), out)      # writes a run directory
run = load_run(out)                                              # and reads it back
"""

import json
import math
import time
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor
from tqdm import tqdm

from hierarchical_lvae.checkpoints import read_tensors, write_json, write_tensors
from hierarchical_lvae.data import FactorImages, load_dataset
from hierarchical_lvae.inference import LOCAL_INFERENCE, LocalELBO, diagnose
from hierarchical_lvae.models import LocalVAE
from hierarchical_lvae.neighbourhoods import Neighbourhood, build_neighbourhood
from hierarchical_lvae.types import Diverged, LocalInference, lookup, nearest, random_state_kept

if TYPE_CHECKING:
    from pyro.distributions import TorchDistribution

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"batch": 25, "num_neighbours": 10, "steps": 300_000, "lr": 1e-4, "clip": None, "image_size": None},
    "quick": {"batch": 8, "num_neighbours": 5, "steps": 4_000, "lr": 6e-4, "clip": 500.0, "image_size": 32},
}
"""Protocols by name: Table 4 of the paper, and one that ends in about ten minutes on two cores."""


@dataclass(frozen=True)
class FitOptions:
    """All options of a fit, resolved: what `options.json` of a run holds."""

    dataset: str
    data_dir: str | None = None
    preset: str = "paper"
    alpha: float = 1.0
    local: str = "one-step"
    first_order: bool = False
    clip: float | None = None
    neighbourhood: str = "noise"
    num_neighbours: int = 10
    batch: int = 25
    steps: int = 300_000
    lr: float = 1e-4
    beta: float = 1.0
    likelihood: str = "bernoulli"
    latent_dim: int = 10
    activation: str = "relu"
    image_size: int | None = None
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("num_neighbours", "batch", "latent_dim", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name.replace('_', ' ')} is {getattr(self, name)}: it must be at least 1")
        for name in ("alpha", "beta", "lr"):
            if not (getattr(self, name) >= 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"{name} is {getattr(self, name)}: it must be finite and not negative")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip is {self.clip}: it must be positive (leave it out not to clip)")

    @classmethod
    def of(cls, preset: str, **options: Any) -> "FitOptions":
        """Fill in a preset where an option is None or missing; with α = 0 the local inference is `shared`.

        >>> options = FitOptions.of("quick", dataset="digits", batch=2)
        >>> options.batch, options.num_neighbours, options.local
        (2, 5, 'one-step')
        """
        if preset not in PRESETS:
            raise ValueError(f"no preset is called {preset!r}: {nearest(preset, PRESETS)}")
        given = {name: value for name, value in options.items() if value is not None}
        if given.get("alpha", cls.alpha) == 0:
            given["local"] = "shared"
        return cls(**{**PRESETS[preset], **given, "preset": preset})


@dataclass(frozen=True)
class Run:
    """A trained Local VAE with all that is needed to use it.

    Images x are (B, C, H, W), and their neighbours x_N (B, K, C, H, W) are such as `run.neighbourhood(index, x)` draws;
    pixels in [0, 1]. Local parameters are the centre of the local posterior.
    """

    options: FitOptions
    vae: LocalVAE
    elbo: LocalELBO
    dataset: FactorImages
    neighbourhood: Neighbourhood

    def adapt(self, x: Tensor, x_N: Tensor) -> "dict[str, TorchDistribution]":
        """The local posterior at x, by site that inference moves: batch (B, 1), event (P,)."""
        if len(x) != len(x_N):
            raise ValueError(f"{len(x)} images and {len(x_N)} neighbourhoods: one neighbourhood an image is needed")
        with torch.no_grad(), pyro.get_param_store().scope():
            return self.elbo.local_posterior(self.vae.model, self.vae.guide, x_N)

    @torch.no_grad()
    def encode(self, x: Tensor, x_N: Tensor) -> Tensor:
        """The codes of x: means of the local encoder, (B, D)."""
        phi_N = self._centre("phi_N", self.vae.phi, x, x_N)
        return self.vae.encode(x.unsqueeze(1), phi_N).mean.squeeze(1)

    @torch.no_grad()
    def decode(self, z: Tensor, x_N: Tensor) -> Tensor:
        """Mean images (B, S, C, H, W), clamped to [0, 1], of codes z (B, S, D) under the local decoders."""
        theta_N = self._centre("theta_N", self.vae.theta, z, x_N)
        return self.vae.decode(z, theta_N).mean.clamp(0, 1)

    def sample(self, x: Tensor, x_N: Tensor, num_samples: int) -> Tensor:
        """Images (B, num_samples, C, H, W) of codes drawn from p(z), decoded as the references x say."""
        z = torch.randn(len(x), num_samples, self.options.latent_dim).to(x.device)
        return self.decode(z, x_N)

    def _centre(self, site: str, meta: Tensor, x: Tensor, x_N: Tensor) -> Tensor:
        posterior = self.adapt(x, x_N)
        return posterior[site].mean if site in posterior else meta.expand(len(x), 1, -1)


def prepare(options: FitOptions) -> Run:
    """Load the data and build an untrained run; its parameters follow from the seed."""
    dataset = load_dataset(options.dataset, options.data_dir).to(options.device)
    if options.image_size is not None and options.image_size < min(dataset.image_shape[1:]):
        dataset = dataset.resized(options.image_size)
    torch.manual_seed(options.seed)
    vae = LocalVAE(
        alpha=options.alpha,
        num_neighbours=options.num_neighbours,
        image_shape=dataset.image_shape,
        latent_dim=options.latent_dim,
        likelihood=options.likelihood,
        activation=options.activation,
    ).to(options.device)
    elbo = LocalELBO(_local_inference(options), beta=options.beta)
    neighbourhood = build_neighbourhood(options.neighbourhood, options.num_neighbours, vae.likelihood.around)
    return Run(options, vae, elbo, dataset, neighbourhood)


def fit(options: FitOptions, out: Path, progress: bool = True) -> Run:
    """Train by Algorithm 1 and leave a run directory: options.json, log.jsonl, model.safetensors.

    Each step draws B images and their neighbours, adapts, and follows the gradient of the mean of Equation 6 by Adam.
    The log has, every 50 steps, the loss and the norm of the meta-gradient (nats an image), and images a second
    (queries and neighbours); every 500 steps also the diagnosis of the adaptation.

    Raises:
        Diverged: the loss is not finite; the message names the step.
        FileExistsError: `out` is there already.
    """
    if out.exists():
        raise FileExistsError(f"{out} is there already: choose another --out")
    out.mkdir(parents=True)
    try:
        run = prepare(options)
    except BaseException:
        out.rmdir()
        raise
    vae, elbo, dataset = run.vae, run.elbo, run.dataset
    versions = {name: version(name) for name in ("hierarchical-lvae", "torch", "pyro-ppl", "numpy")}
    data = {"source": dataset.source, "images": len(dataset), "fingerprint": dataset.fingerprint}
    write_json(out / "options.json", {**asdict(options), "data": data, "versions": versions})

    optimizer = torch.optim.Adam(vae.parameters(), lr=options.lr)
    clip = math.inf if options.clip is None else options.clip
    bar = tqdm(range(1, options.steps + 1), "fit", unit="step", disable=not progress, smoothing=0.05)
    losses, start = [], time.perf_counter()
    with (
        pyro.validation_enabled(False),  # a divergence is seen in the loss, and named with its step
        pyro.get_param_store().scope(),  # leave the caller's parameters alone
        (out / "log.jsonl").open("w", buffering=1) as log,
    ):
        for step in bar:
            index = torch.randint(len(dataset), (options.batch,)).to(options.device)
            x = dataset.batch(index)
            x_N = run.neighbourhood(index, x)
            loss = elbo.differentiable_loss(vae.model, vae.guide, x, x_N) / options.batch
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(vae.parameters(), clip)
            losses.append(loss.item())
            if not (math.isfinite(losses[-1]) and norm.isfinite()):
                raise Diverged(
                    f"the loss is {losses[-1]:g} nats and its gradient {norm:g} at step {step}: "
                    "lower --alpha or --lr, or clip the gradient with --clip"
                )
            optimizer.step()

            if step % 50 == 0 or step == options.steps:
                seconds, start = time.perf_counter() - start, time.perf_counter()
                entry = {"step": step, "loss": sum(losses) / len(losses), "gradient_norm": norm.item()}
                entry["images_per_second"] = len(losses) * options.batch * (options.num_neighbours + 1) / seconds
                if step % 500 == 0:
                    info = diagnose(elbo, vae.model, vae.guide, x_N)
                    entry |= {name: value.mean().item() for name, value in info._asdict().items()}
                log.write(json.dumps(entry) + "\n")
                bar.set_postfix_str(f"{entry['loss']:.0f} nats an image, {entry['images_per_second']:.0f} images/s")
                losses = []
    write_tensors(out / "model.safetensors", vae.state_dict())
    return run


def load_run(path: str | Path, device: str | None = None) -> Run:
    """Read a run directory back, with its data set, onto `device` (that of the fit if None).

    Raises:
        FileNotFoundError: it is no run, or an unfinished one.
        ValueError: the data are not those that it was trained on.
    """
    path = Path(path)
    for name in ("options.json", "model.safetensors"):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path} has no {name}: is it the directory of a finished `hlvae fit`?")
    saved = json.loads((path / "options.json").read_text())
    options = FitOptions(**{field.name: saved[field.name] for field in fields(FitOptions)})
    with random_state_kept():
        run = prepare(options if device is None else replace(options, device=device))
    if run.dataset.fingerprint != saved["data"]["fingerprint"]:
        raise ValueError(f"{path} was trained on {saved['data']['source']}, and here is {run.dataset.source}")
    run.vae.load_state_dict(read_tensors(path / "model.safetensors"))
    return run


def _local_inference(options: FitOptions) -> LocalInference:
    local = lookup(LOCAL_INFERENCE, options.local, "local inference")
    takes_first_order = "first_order" in (field.name for field in fields(local))
    return local(first_order=True) if options.first_order and takes_first_order else local()
