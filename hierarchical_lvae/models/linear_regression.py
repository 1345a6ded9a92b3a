"""Local linear regression, a reference program: hierarchical like the Local VAE, but with everything in closed form.

    θ_N ~ Normal(θ, τ² I)           local coefficients, one set per neighbourhood
    y   ~ Normal(A θ_N, σ²)         K outputs for K rows of inputs A

There is no code z, so ℓ_N(θ_N) = −log p(y | A, θ_N) exactly: a quadratic with curvature H = AᵀA / σ².
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import pyro_method
from torch import Tensor, nn

from hierarchical_lvae.models.program import Program

Data = tuple[Tensor, Tensor]


class LocalLinearRegression(Program):
    """Model and guide of local linear regression, for data (inputs (B, K, P), outputs (B, K)).

    Args:
        theta: meta-parameters, (P,).
        tau: standard deviation of the prior of the local coefficients.
        sigma: standard deviation of the noise.
    """

    def __init__(self, theta: Tensor, tau: float, sigma: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta)
        self.tau = tau
        self.sigma = sigma

    @pyro_method
    def model(self, data: Data) -> Tensor:
        """p(θ_N | θ) p(y | A, θ_N)."""
        inputs, outputs = data
        with pyro.plate("neighbourhood", inputs.shape[0], dim=-2):
            theta_N = pyro.sample("theta_N", dist.Normal(self.theta, self.tau).to_event(1))
            with pyro.plate("point", inputs.shape[1], dim=-1):
                return pyro.sample("y", dist.Normal((inputs * theta_N).sum(-1), self.sigma), obs=outputs)

    def guide(self, data: Data) -> None:
        """Empty: the only latent site is local."""

    def curvature(self, data: Data) -> Tensor:
        """H = AᵀA / σ² of each neighbourhood: (B, P, P)."""
        inputs, _ = data
        return inputs.mT @ inputs / self.sigma**2

    def posterior(self, data: Data) -> dist.MultivariateNormal:
        """p(θ_N | N) = Normal(Λ⁻¹ (θ/τ² + Aᵀy/σ²), Λ⁻¹) with Λ = I/τ² + H: batch (B,), event (P,)."""
        inputs, outputs = data
        eye = torch.eye(inputs.shape[-1]).to(inputs)
        precision = eye / self.tau**2 + self.curvature(data)
        pull = self.theta / self.tau**2 + torch.einsum("bkp,bk->bp", inputs, outputs) / self.sigma**2
        mean = torch.linalg.solve(precision, pull)
        return dist.MultivariateNormal(mean, precision_matrix=precision)

    def log_evidence(self, data: Data) -> Tensor:
        """log p(N) = log Normal(y; A θ, σ² I + τ² A Aᵀ) of each neighbourhood: (B,), in nats."""
        inputs, outputs = data
        eye = torch.eye(inputs.shape[1]).to(inputs)
        covariance = self.sigma**2 * eye + self.tau**2 * inputs @ inputs.mT
        return dist.MultivariateNormal(inputs @ self.theta, covariance).log_prob(outputs)
