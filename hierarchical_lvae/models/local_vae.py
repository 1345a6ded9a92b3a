"""The Local VAE: a hierarchical generative model (Equation 3) and its guide.

    θ_N ~ p(θ_N | θ) = Normal(θ, τ² I)       local decoder weights, one set per neighbourhood
    z   ~ p(z)       = Normal(0, I)          one code per point
    x   ~ p(x | z, θ_N)                      likelihood(decoder(z; θ_N))

    φ_N                                      local encoder weights: variational parameters, one set per neighbourhood
    z   ~ q(z | x, φ_N) = Normal(μ, σ²)      (μ, log σ) = encoder(x; φ_N)

α enters only through the prior variance τ² = α / (K·C·H·W) of the local weights, from which local inference reads its
step size. A step of size τ² is close to the posterior mode under this prior only if it is short (sharpness well below
1; see `inference.adaptation`). With α = 0 both local sites are Delta at the meta-parameters: the plain VAE.
"""

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import pyro_method
from pyro.poutine.util import is_validation_enabled
from torch import Tensor, nn

from hierarchical_lvae.models import LIKELIHOODS
from hierarchical_lvae.models.likelihoods import Gaussian, check_pixels
from hierarchical_lvae.models.log_scale import LogScaleNormal
from hierarchical_lvae.models.networks import Network, decoder, encoder
from hierarchical_lvae.models.program import Program
from hierarchical_lvae.types import lookup, separated


class LocalVAE(Program):
    """A VAE whose weights are local to each data point's neighbourhood, as a Pyro model and guide.

    Args:
        alpha: the paper's step size, on the loss averaged over neighbours and pixels; 0 is the plain VAE.
        num_neighbours: K, used to convert α to τ².
        image_shape: (C, H, W), with C 1 or 3 and sides of at least 8 pixels.
        latent_dim: D, the size of a code.
        likelihood: a key of `LIKELIHOODS`.
        activation: a key of `ACTIVATIONS`; use "softplus" for finite differences.
        local_layers: which weights are local, separated by commas: "all", "decoder", "encoder", "head" (the decoder's
            last layer), or patterns of names such as "decoder.9.*" (or "9.*"). All neighbourhoods share the others.

    The meta-parameters of the local sites are `theta` (decoder) and `phi` (encoder), each one flat vector. Weights that
    are not local are in `theta_shared` and, if some of the encoder's are local, in `phi_shared`.

    Raises:
        ValueError: an argument is out of range, or a name is unknown (the nearest is suggested).

    >>> vae = LocalVAE()
    >>> vae.theta.numel() + vae.phi.numel()     # Table 3
    766295
    >>> round(vae.tau.item(), 5)
    0.00285
    >>> pyro.poutine.trace(vae.model).get_trace(torch.rand(2, 5, 3, 64, 64)).nodes["theta_N"]["value"].shape
    torch.Size([2, 1, 382339])
    """

    def __init__(
        self,
        alpha: float = 1.0,
        num_neighbours: int = 10,
        image_shape: tuple[int, int, int] = (3, 64, 64),
        latent_dim: int = 10,
        likelihood: str = "bernoulli",
        activation: str = "relu",
        local_layers: str = "all",
    ) -> None:
        super().__init__()
        if not (alpha >= 0 and math.isfinite(alpha)):
            raise ValueError(f"alpha is {alpha}: it must be finite and not negative")
        if num_neighbours < 1 or latent_dim < 1:
            raise ValueError(f"num_neighbours is {num_neighbours} and latent_dim {latent_dim}: both must be at least 1")
        self.image_shape = tuple(image_shape)
        self.latent_dim = latent_dim
        self.num_neighbours = num_neighbours
        self.is_local = alpha > 0
        self.register_buffer("tau", torch.tensor(math.sqrt(alpha / self._terms)))
        whole = {"decoder": decoder(image_shape, latent_dim, activation)}
        whole["encoder"] = encoder(image_shape, latent_dim, activation)
        local = choose_layers(local_layers if self.is_local else "all", whole)
        self.adapts = {name: self.is_local and bool(names) for name, names in local.items()}
        """Whether "decoder" and "encoder" have local weights."""
        self.decoder, self.encoder = (
            Network(network.layers, network.event_dim, local[name] or None) for name, network in whole.items()
        )
        self.likelihood = lookup(LIKELIHOODS, likelihood, "likelihood")()
        self.theta, self.theta_shared = self._meta(self.decoder)
        self.phi, self.phi_shared = self._meta(self.encoder)

    @property
    def alpha(self) -> float:
        """α = τ²·K·C·H·W. It can be changed, but must stay positive and finite.

        Raises:
            ValueError: the new value is not positive and finite, or the VAE has no local weights.
        """
        return self.tau.item() ** 2 * self._terms

    @alpha.setter
    def alpha(self, value: float) -> None:
        if not (self.is_local and value > 0 and math.isfinite(value)):
            raise ValueError(
                f"alpha cannot change from {self.alpha:g} to {value:g}: a Local VAE needs it finite and positive, and "
                "a plain VAE keeps 0"
            )
        self.tau.fill_(math.sqrt(value / self._terms))

    @property
    def _terms(self) -> int:
        return self.num_neighbours * math.prod(self.image_shape)

    @property
    def _about(self) -> dict[str, Any]:
        """Metadata of `theta_N` for the local inference."""
        return {"layout": self.decoder.layout, "num_neighbours": self.num_neighbours}

    @pyro_method
    def model(self, x: Tensor) -> Tensor:
        """p(θ_N | θ) p(z) p(x | z, θ_N).

        Args:
            x: observed images, pixels in [0, 1]: (B, K, C, H, W) for K in each of B neighbourhoods, or (B, C, H, W) for
                queries, which are neighbourhoods of one point. (Use `pyro.poutine.uncondition` to generate images.)

        Raises:
            ValueError: the images have another shape, or pixels outside [0, 1]. (Pixels are checked only if Pyro's
                validation is enabled, and not under a Gaussian.)
        """
        x = self._by_neighbourhood(x)
        with pyro.plate("neighbourhood", x.shape[0], dim=-2):
            theta_N = pyro.sample("theta_N", self._local("decoder", self.theta), infer=self._about)
            with pyro.plate("point", x.shape[1], dim=-1):
                # a scale of 1.0 would be copied to the GPU in each call, which a CUDA graph cannot capture
                zeros, ones = self.theta.new_zeros(self.latent_dim), self.theta.new_ones(self.latent_dim)
                z = pyro.sample("z", dist.Normal(zeros, ones).to_event(1))
                return pyro.sample("x", self.decode(z, self._own("decoder", theta_N, self.theta)).to_event(3), obs=x)

    @pyro_method
    def guide(self, x: Tensor) -> Tensor:
        """q(z | x, φ_N), for x as in `model`. The local sites default to their priors; local inference sets them."""
        x = self._by_neighbourhood(x)
        with pyro.plate("neighbourhood", x.shape[0], dim=-2):
            pyro.sample("theta_N", self._local("decoder", self.theta), infer=self._about)  # kept by replay
            phi_N = pyro.sample("phi_N", self._local("encoder", self.phi), infer={"is_auxiliary": True})
            with pyro.plate("point", x.shape[1], dim=-1):
                return pyro.sample("z", self.encode(x, self._own("encoder", phi_N, self.phi)).to_event(1))

    def encode(self, x: Tensor, phi_N: Tensor) -> dist.Normal:
        """q(z | x, φ_N) of images (..., K, C, H, W) with weights (..., 1, P): batch (..., K, D)."""
        _same_type("images", x, phi_N)
        mean, log_sigma = self.encoder(x, phi_N, self.phi_shared).chunk(2, dim=-1)
        return LogScaleNormal(mean, log_sigma)

    def decode(self, z: Tensor, theta_N: Tensor) -> dist.TorchDistribution:
        """p(x | z, θ_N) of codes (..., K, D) with weights (..., 1, P): batch (..., K, C, H, W)."""
        _same_type("codes", z, theta_N)
        return self.likelihood(self.decoder(z, theta_N, self.theta_shared))

    @staticmethod
    def _meta(network: Network) -> tuple[nn.Parameter, nn.Parameter | None]:
        """The local weights of a network, and its shared weights, or None if it has none."""
        local, shared = network.initial_parameters()
        return nn.Parameter(local), nn.Parameter(shared) if len(shared) else None

    def _own(self, network: str, value: Tensor, meta: Tensor) -> Tensor:
        """Without locality, use the meta-parameter itself, so that the network sees a single set of weights."""
        return value if self.adapts[network] else meta

    def _local(self, network: str, meta: Tensor) -> dist.TorchDistribution:
        if not self.adapts[network]:
            return dist.Delta(meta, event_dim=1)
        return dist.Normal(meta, self.tau).to_event(1)

    def _by_neighbourhood(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(1) if x.dim() == 4 else x
        if x.dim() != 5 or x.shape[2:] != self.image_shape or 0 in x.shape:
            raise ValueError(
                f"images have shape {tuple(x.shape)}: pass neighbourhoods of K images (B, K, C, H, W) or queries "
                f"(B, C, H, W), with B and K at least 1 and (C, H, W) = {self.image_shape}"
            )
        if is_validation_enabled() and not isinstance(self.likelihood, Gaussian):  # whose noise is not in [0, 1]
            check_pixels("x", x)
        return x


def _same_type(name: str, value: Tensor, weights: Tensor) -> None:
    if value.dtype != weights.dtype:
        raise ValueError(f"{name} are {value.dtype} but the weights are {weights.dtype}: convert the {name}")


def choose_layers(local_layers: str, networks: Mapping[str, Network]) -> dict[str, list[str]]:
    """Return the names of the local parameters of "decoder" and "encoder", for `local_layers` as in `LocalVAE`.

    >>> networks = {"decoder": decoder((1, 8, 8), 3), "encoder": encoder((1, 8, 8), 3)}
    >>> choose_layers("head", networks)
    {'decoder': ['5.weight', '5.bias'], 'encoder': []}

    Raises:
        ValueError: a part of `local_layers` is empty or matches no parameter.
    """
    named = {f"{network}.{name}": (network, name) for network, net in networks.items() for name in net.whole.shapes}
    last = list(networks["decoder"].whole.shapes)[-1].partition(".")[0]
    words = {"all": "*", "decoder": "decoder.*", "encoder": "encoder.*", "head": f"decoder.{last}.*"}
    chosen = set[str]()
    for part in separated(local_layers, "`local_layers`"):
        pattern = words.get(part, part)
        found = {name for name in named if fnmatchcase(name, pattern) or fnmatchcase(name, f"decoder.{pattern}")}
        if not found:
            raise ValueError(
                f"`local_layers`: no weights match {part!r}: give {', '.join(words)}, or a pattern of "
                f"{', '.join(named)}"
            )
        chosen |= found
    return {
        network: [name for full, (owner, name) in named.items() if owner == network and full in chosen]
        for network in networks
    }
