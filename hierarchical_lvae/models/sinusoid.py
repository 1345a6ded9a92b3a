"""MAML's sinusoid regression as a hierarchical program: each neighbourhood is one sinusoid.

    θ_N ~ Normal(θ, τ² I)                    the weights of a 1 → 40 → 40 → 1 network
    y   ~ Normal(network(x; θ_N), σ²)

With σ = 1 the loss ℓ_N is half the sum of squared errors plus a constant, so MAML's step size α on their mean
corresponds to τ² = 2 α / K. After 15,000 meta-steps (`benchmarks/sinusoid.py`, one seed) one step on 10 points reduces
the squared error on new tasks from 2.94 to 0.41, a factor of 7.2; the mode of the local posterior, for which the
network was not trained, gives 0.96.
Tasks are y = a sin(x − b) with a in [0.1, 5], b in [0, π] and x in [−5, 5] (Finn, Abbeel, Levine, 2017, section 5.1).
"""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import pyro_method
from torch import Tensor, nn

from hierarchical_lvae.models.layers import Activation, Linear
from hierarchical_lvae.models.networks import Network
from hierarchical_lvae.models.program import Program

Data = tuple[Tensor, Tensor]


class Sinusoid(Program):
    """Model and guide of the sinusoid regression, for data (inputs (B, K), outputs (B, K)).

    Args:
        alpha: MAML's step size, on the squared error averaged over the K points.
        num_points: K, the size of a support set.
        width: units in each of the two hidden layers.
    """

    def __init__(self, alpha: float = 0.01, num_points: int = 10, width: int = 40) -> None:
        super().__init__()
        self.tau = math.sqrt(2 * alpha / num_points)
        relu = Activation(torch.relu)
        self.network = Network([Linear(1, width), relu, Linear(width, width), relu, Linear(width, 1)], event_dim=1)
        self.theta = nn.Parameter(self.network.initial_parameters()[0])

    @pyro_method
    def model(self, data: Data) -> Tensor:
        """p(θ_N | θ) p(y | x, θ_N)."""
        inputs, outputs = data
        with pyro.plate("neighbourhood", inputs.shape[0], dim=-2):
            prior = dist.Normal(self.theta, self.tau).to_event(1)
            theta_N = pyro.sample("theta_N", prior, infer={"layout": self.network.layout})
            with pyro.plate("point", inputs.shape[1], dim=-1):
                return pyro.sample("y", dist.Normal(self.predict(inputs, theta_N), 1.0), obs=outputs)

    def guide(self, data: Data) -> None:
        """Empty: the only latent site is local."""

    def predict(self, inputs: Tensor, theta_N: Tensor) -> Tensor:
        """The mean of y at inputs (B, K) with weights (B, 1, P): (B, K)."""
        return self.network(inputs.unsqueeze(-1), theta_N).squeeze(-1)


def draw_tasks(num_tasks: int, num_query: int = 10, num_support: int = 10) -> tuple[Data, Data]:
    """Draw sinusoids and points on each: query and support, each (inputs, outputs) of shape (num_tasks, num_…)."""
    amplitude = torch.empty(num_tasks, 1).uniform_(0.1, 5.0)
    phase = torch.empty(num_tasks, 1).uniform_(0.0, math.pi)
    inputs = torch.empty(num_tasks, num_query + num_support).uniform_(-5.0, 5.0)
    outputs = amplitude * torch.sin(inputs - phase)
    query, support = zip(*(t.split([num_query, num_support], 1) for t in (inputs, outputs)), strict=True)
    return query, support
