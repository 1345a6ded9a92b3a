"""The reference: draws of local parameters, and of the codes, from their exact posterior, by Pyro's NUTS.

No bound, no point and no Gaussian: p(θ_N, z | N) as the model says it. It costs thousands of passes for each
neighbourhood, so it is for small programs, or for a block of the local parameters with the rest held at a centre,
and for evaluation only. (Hoffman and Gelman, 2014.)
"""

from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide.initialization import init_to_value
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from hierarchical_lvae.inference.bound import Program
from hierarchical_lvae.inference.sites import LocalSites, base
from hierarchical_lvae.types import random_state_kept

LARGEST = 500


def nuts(
    model: Program,
    guide: Program,
    data: Any,
    site: str = "theta_N",
    centre: Mapping[str, Tensor] | None = None,
    positions: Tensor | None = None,
    num_samples: int = 500,
    warmup_steps: int = 500,
    num_chains: int = 2,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Tensor]:
    """Draw from p(θ_N, z | N), or from its block given the other local parameters.

    Args:
        model, guide: the Pyro pair; the guide's codes are where the chains begin.
        data: their argument for *one* neighbourhood, B = 1.
        site: the local site to draw.
        centre: local values (1, 1, P) by site, from which the chains begin and at which the rest is held; the prior
            means where there are none.
        positions: which parameters are drawn, (p,); all of them when None.
        num_samples, warmup_steps, num_chains: of each chain; chains run one after another.
        seed: of the chains. The random state is left as it was.
        progress: show Pyro's progress bar.

    Returns:
        Draws by site: of the local site's parameters (chains, draws, p), of the codes (chains, draws, 1, K, D).

    Raises:
        ValueError: more than 500 dimensions, more than one neighbourhood, or no such local site.
    """
    centre = dict(centre or {})
    with torch.no_grad(), random_state_kept():
        local = LocalSites({site, *centre})
        with local:
            traced = poutine.trace(poutine.condition(guide, data=centre)).get_trace(data)
            conditioned = poutine.replay(poutine.condition(model, data=centre), trace=traced)
            traced = poutine.trace(conditioned).get_trace(data)
    if site not in local.prior:
        raise ValueError(f"{site!r} is no random local site of this program (α = 0?): there is nothing to draw")
    point, normal = local.values[site].detach(), base(local.prior[site])
    if point.shape[0] != 1:
        raise ValueError(f"{point.shape[0]} neighbourhoods were given: draw one after another, each with B = 1")
    positions = torch.arange(point.shape[-1]).to(point.device) if positions is None else positions
    mean, scale = (t[..., positions].detach() for t in (normal.mean, normal.scale))
    start = {"block": (point[..., positions] - mean) / scale}  # in units of the prior, where the geometry is even
    codes = {n: traced.nodes[n] for n in traced.stochastic_nodes if n not in local.names}
    start |= {name: node["value"] for name, node in codes.items() if not site_is_subsample(node)}
    dimensions = sum(value.numel() for value in start.values())
    if dimensions > LARGEST:
        raise ValueError(
            f"NUTS would have {dimensions:,} dimensions ({len(positions):,} local parameters and the codes), and up to "
            f"{LARGEST} are sensible: give `positions` of fewer parameters (layout.positions(…)), or fewer points"
        )

    def program(data: Any) -> None:
        block = pyro.sample("block", dist.Normal(torch.zeros_like(mean), 1.0).to_event(3))
        with _Held({**centre, site: point.index_copy(-1, positions, mean + scale * block)}):
            model(data)

    chains = []
    for chain in range(num_chains):
        with torch.enable_grad(), random_state_kept(), pyro.get_param_store().scope():
            torch.manual_seed(seed + chain)
            kernel = NUTS(program, init_strategy=init_to_value(values=start), full_mass=[("block",)])
            mcmc = MCMC(kernel, num_samples, warmup_steps, disable_progbar=not progress)
            mcmc.run(data)
            chains.append(mcmc.get_samples())
    draws = {name: torch.stack([chain[name] for chain in chains]) for name in start}
    return {site: (mean + scale * draws.pop("block")).flatten(2), **draws}


class _Held(Messenger):
    """Hold sites at values, their densities not counted: the block's is, at a site of its own."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.values:
            fn = msg["fn"]
            msg["value"] = self.values[msg["name"]]
            msg["is_observed"] = True
            msg["fn"] = dist.ImproperUniform(fn.support, fn.batch_shape, fn.event_shape)
