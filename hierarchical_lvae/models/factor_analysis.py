"""Factor analysis (the linear VAE), a reference program with known evidence and code posterior; loadings may be local.

    θ_N ~ Normal(θ, τ² I)           local loadings W_N, flattened (τ = 0: the loadings are θ)
    z   ~ Normal(0, I)              one code per point
    x   ~ Normal(W_N z, σ² I)

The guide is the exact posterior of z under the *meta* loadings. With τ = 0 the ELBO at this guide equals the log
evidence. With τ > 0 the program shows a subtle point: the ELBO, as a function of θ_N, has a different curvature from
the log evidence.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import pyro_method
from torch import Tensor, nn

from hierarchical_lvae.models.program import Program


class FactorAnalysis(Program):
    """Model and guide of factor analysis, for data x (B, K, X).

    Args:
        loadings: the meta loadings W, (X, D).
        sigma: standard deviation of the noise.
        tau: standard deviation of the prior of the local loadings.
    """

    def __init__(self, loadings: Tensor, sigma: float, tau: float = 0.0) -> None:
        super().__init__()
        self.theta = nn.Parameter(loadings.flatten())
        self.shape = loadings.shape
        self.sigma = sigma
        self.tau = tau

    @pyro_method
    def model(self, x: Tensor) -> Tensor:
        """p(θ_N | θ) p(z) p(x | z, θ_N)."""
        prior = dist.Normal(self.theta, self.tau).to_event(1) if self.tau else dist.Delta(self.theta, event_dim=1)
        with pyro.plate("neighbourhood", x.shape[0], dim=-2):
            theta_N = pyro.sample("theta_N", prior)
            with pyro.plate("point", x.shape[1], dim=-1):
                eye = torch.eye(self.shape[1]).to(x)
                z = pyro.sample("z", dist.MultivariateNormal(eye.new_zeros(self.shape[1]), eye))
                mean = (theta_N.unflatten(-1, self.shape) @ z.unsqueeze(-1)).squeeze(-1)
                return pyro.sample("x", dist.Normal(mean, self.sigma).to_event(1), obs=x)

    @pyro_method
    def guide(self, x: Tensor) -> Tensor:
        """q(z | x) = p(z | x, θ)."""
        with pyro.plate("neighbourhood", x.shape[0], dim=-2), pyro.plate("point", x.shape[1], dim=-1):
            return pyro.sample("z", self.posterior(x))

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        """p(z | x, θ) = Normal(S Wᵀx/σ², S) with S⁻¹ = I + WᵀW/σ²: batch (B, K), event (D,)."""
        loadings = self.theta.unflatten(0, self.shape)
        precision = torch.eye(self.shape[1]).to(x) + loadings.mT @ loadings / self.sigma**2
        mean = torch.linalg.solve(precision, (x @ loadings / self.sigma**2).mT).mT
        return dist.MultivariateNormal(mean, precision_matrix=precision)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x | θ) = log Normal(x; 0, W Wᵀ + σ² I): (B, K), in nats."""
        loadings = self.theta.unflatten(0, self.shape)
        covariance = loadings @ loadings.mT + self.sigma**2 * torch.eye(self.shape[0]).to(x)
        return dist.MultivariateNormal(x.new_zeros(self.shape[0]), covariance).log_prob(x)
