"""The Local VAE for points in a plane, in space, …, with small networks and a Gaussian decoder (Appendix A).

    θ_N ~ Normal(θ, τ² I)                   z ~ Normal(0, I)                  x ~ Normal(decoder(z; θ_N), σ²)

    z ~ q(z | y, φ_N) = Normal(μ, s²)       (μ, log s) = encoder(y; φ_N)

y is the input of the encoder. Locally linear embedding reconstructs a point from its neighbours,

    (9)    Σ_i ‖x_i − Σ_j W_ij x_j‖²,       Σ_j W_ij = 1,

and replacing the row W_i of each point by a network with weights local to its neighbourhood gives

    (10)   Σ_i ‖x_i − g_{θ_N}(N(x_i))‖²,    g = decoder ∘ encoder.

Here −log p(x | z, θ_N) is, up to a constant, (10) divided by 2σ² if y = N(x), the neighbours; y = x is the Local VAE.
(The paper prints Σ_j W_ij = 0 with (9).)
"""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import pyro_method
from torch import Tensor, nn

from hierarchical_lvae.models.layers import Activation, Linear
from hierarchical_lvae.models.log_scale import LogScaleNormal
from hierarchical_lvae.models.networks import Network
from hierarchical_lvae.models.program import Program

Data = tuple[Tensor, Tensor]


class PointVAE(Program):
    """Model and guide of the Local VAE for points, for data (y (B, K, Y), x (B, K, X)), often with y = x.

    Args:
        alpha: the step size, on the loss averaged over neighbours and coordinates: τ² = α / (K·X).
        num_neighbours: K.
        size: X, the number of coordinates of a point.
        inputs: Y, the size of the encoder's input; X if None.
        latent_dim: D, the size of a code.
        width: units in each of the two hidden layers of both networks.
        sigma: standard deviation of the noise.

    >>> program = PointVAE(size=3, latent_dim=2)
    >>> x = torch.randn(4, 10, 3)
    >>> program.model((x, x)).shape, program.guide((x, x)).shape
    (torch.Size([4, 10, 3]), torch.Size([4, 10, 2]))
    """

    def __init__(
        self,
        alpha: float = 1e-3,
        num_neighbours: int = 10,
        size: int = 3,
        inputs: int | None = None,
        latent_dim: int = 2,
        width: int = 64,
        sigma: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_neighbours, self.latent_dim, self.sigma = num_neighbours, latent_dim, sigma
        self.tau = math.sqrt(alpha / (num_neighbours * size))
        self.encoder = _network(inputs or size, width, 2 * latent_dim)
        self.decoder = _network(latent_dim, width, size)
        self.theta = nn.Parameter(self.decoder.initial_parameters()[0])
        self.phi = nn.Parameter(self.encoder.initial_parameters()[0])

    @pyro_method
    def model(self, data: Data) -> Tensor:
        """p(θ_N | θ) p(z) p(x | z, θ_N)."""
        _, x = data
        with pyro.plate("neighbourhood", x.shape[0], dim=-2):
            prior = dist.Normal(self.theta, self.tau).to_event(1)
            theta_N = pyro.sample(
                "theta_N", prior, infer={"layout": self.decoder.layout, "num_neighbours": self.num_neighbours}
            )
            with pyro.plate("point", x.shape[1], dim=-1):
                z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent_dim), 1.0).to_event(1))
                return pyro.sample("x", dist.Normal(self.decoder(z, theta_N), self.sigma).to_event(1), obs=x)

    @pyro_method
    def guide(self, data: Data) -> Tensor:
        """q(z | y, φ_N)."""
        y, _ = data
        with pyro.plate("neighbourhood", y.shape[0], dim=-2):
            prior = dist.Normal(self.phi, self.tau).to_event(1)
            phi_N = pyro.sample("phi_N", prior, infer={"is_auxiliary": True})
            with pyro.plate("point", y.shape[1], dim=-1):
                return pyro.sample("z", self.encode(y, phi_N).to_event(1))

    def encode(self, y: Tensor, phi_N: Tensor) -> dist.Normal:
        """q(z | y, φ_N) of inputs (..., K, Y) with weights (..., 1, P): batch (..., K, D)."""
        mean, log_scale = self.encoder(y, phi_N).chunk(2, dim=-1)
        return LogScaleNormal(mean, log_scale)


def _network(inputs: int, width: int, outputs: int) -> Network:
    act = Activation(torch.tanh)
    return Network([Linear(inputs, width), act, Linear(width, width), act, Linear(width, outputs)], event_dim=1)
