"""The reference: samples of the local parameters and codes from their exact posterior, by Pyro's NUTS.

NUTS targets p(θ_N, z | N) itself, without a bound, a point estimate or a Gaussian approximation. It costs thousands of
passes per neighbourhood, so it is for evaluation only: of small programs, or of a block of the local parameters with
the others held at a centre. The block is whitened by its Laplace approximation at the centre, which makes the chains
affordable and leaves the target distribution unchanged. Source: Hoffman and Gelman (2014).
"""

from collections.abc import Collection, Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide.initialization import init_to_value
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from hierarchical_lvae import progress
from hierarchical_lvae.inference.bound import PyroProgram, negative_elbo, trace_pair
from hierarchical_lvae.inference.curvature import ggn_matrix
from hierarchical_lvae.inference.sites import LocalSites, base
from hierarchical_lvae.types import random_state_kept

LARGEST, LARGEST_DEPTH = 600, 8


def nuts(
    model: PyroProgram,
    guide: PyroProgram,
    data: Any,
    site: str = "theta_N",
    centre: Mapping[str, Tensor] | None = None,
    positions: Tensor | None = None,
    num_samples: int = 500,
    warmup_steps: int = 500,
    num_chains: int = 2,
    sites: Collection[str] = ("theta_N", "phi_N"),
    seed: int = 0,
) -> dict[str, Tensor]:
    """Sample from p(θ_N, z | N), or sample a block of θ_N and z given the other local parameters.

    Args:
        model, guide: the Pyro programs; the chains start at codes drawn from the guide.
        data: their argument for *one* neighbourhood, B = 1.
        site: the local site to sample.
        centre: local values (1, 1, P) by site: the chains start here, and parameters that are not sampled stay here. A
            site without a value uses its prior mean.
        positions: the parameters to sample, (p,); None is all of them.
        num_samples, warmup_steps: steps per chain.
        num_chains: the number of chains, run one after another.
        sites: names of all local sites.
        seed: the seed of the first chain; each further chain adds one. The random state is restored afterwards.

    Returns:
        Draws by site: (chains, draws, p) for the local site's parameters, (chains, draws, 1, K, D) for the codes.

    Raises:
        ValueError: there are more than 600 dimensions, more than one neighbourhood, or no such local site.
    """
    centre = dict(centre or {})
    with torch.enable_grad(), random_state_kept():
        values = {name: value.detach().requires_grad_() for name, value in centre.items()}
        at = negative_elbo(model, guide, data, sites, values)
        if site not in at.parameters:
            raise ValueError(
                f"{site!r} is not a random local site of this program (α = 0?), so there is nothing to sample: "
                "check `site` and `sites`"
            )
        point, prior = at.values[site].detach(), base(at.prior[site])
        if point.shape[0] != 1:
            raise ValueError(f"got {point.shape[0]} neighbourhoods: sample them one at a time, each with B = 1")
        positions = torch.arange(point.shape[-1]).to(point.device) if positions is None else positions
        codes = _codes(model, guide, data, sites, centre)
        dimensions = len(positions) + sum(value.numel() for value in codes.values())
        if dimensions > LARGEST:
            raise ValueError(
                f"NUTS would sample {dimensions:,} dimensions ({len(positions):,} local parameters and the codes), "
                f"more than {LARGEST}: pass fewer `positions` (layout.positions(…)), or fewer points"
            )
        normal = dist.Normal(*(t[..., positions].detach() for t in (prior.mean, prior.scale))).to_event(3)
        precision = ggn_matrix(at, site, positions) + torch.diag_embed(base(normal).variance.reciprocal())
        root = torch.linalg.cholesky(torch.linalg.inv(precision))

    def embed(block: Tensor) -> Tensor:
        return point[..., positions] + (root @ block.unsqueeze(-1)).squeeze(-1)

    held = {name: value.detach() for name, value in at.values.items()}
    white = dist.Normal(torch.zeros_like(point[..., positions]), 1.0).to_event(3)

    def program(data: Any) -> None:
        even = pyro.sample("block", white)
        block = embed(even)
        pyro.factor("prior", normal.log_prob(block) - white.log_prob(even))
        with _Held({**held, site: point.index_copy(-1, positions, block)}):
            model(data)

    start = {"block": torch.zeros_like(point[..., positions]), **codes}
    chains = []
    for chain in range(num_chains):
        with torch.enable_grad(), random_state_kept(), pyro.get_param_store().scope():
            torch.manual_seed(seed + chain)
            kernel = NUTS(program, init_strategy=init_to_value(values=start), max_tree_depth=LARGEST_DEPTH)
            hidden = not (progress.shown() and progress.live())
            mcmc = MCMC(kernel, num_samples, warmup_steps, disable_progbar=hidden)
            mcmc.run(data)
            chains.append(mcmc.get_samples())
    draws = {name: torch.stack([chain[name] for chain in chains]) for name in start}
    return {site: embed(draws.pop("block")).flatten(2), **draws}


def _codes(
    model: PyroProgram, guide: PyroProgram, data: Any, sites: Collection[str], centre: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Draw the model's other latent sites from the guide."""
    trace, _ = trace_pair(model, guide, data, LocalSites(sites), centre)
    nodes = {name: trace.nodes[name] for name in trace.stochastic_nodes if name not in sites}
    return {name: node["value"].detach() for name, node in nodes.items() if not site_is_subsample(node)}


class _Held(Messenger):
    """Hold sites at values and leave out their densities: the block's density is counted at its own site."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.values:
            fn = msg["fn"]
            msg["value"] = self.values[msg["name"]]
            msg["is_observed"] = True
            msg["fn"] = dist.ImproperUniform(fn.support, fn.batch_shape, fn.event_shape)
