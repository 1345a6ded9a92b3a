"""The local sites: a Messenger that sets each one to its prior mean and records its prior.

Inference on a neighbourhood starts at the meta-parameters, so in the inner pass

    theta_N = pyro.sample("theta_N", Normal(theta, tau).to_event(1))

must equal θ for each of the B neighbourhoods. `LocalSites` does this: the value is the mean of the site's distribution,
*expanded* over the neighbourhoods (stride 0, so the weights are still shared), and the distribution is recorded,
because its variance τ² is the step size. A conditioned site keeps its value, but its prior is recorded, too.

A program may state where each weight lies in the flat vector, by `infer={"layout": ParameterLayout(…)}` at the site;
local inference can then select layers, such as the last one. The entry `"num_neighbours"` states the number of
neighbours K for which the program set τ² = α / (K·C·H·W); a support set of another size then causes a warning.
"""

from collections.abc import Collection
from typing import Any

import pyro.distributions as dist
from pyro.poutine.messenger import Messenger
from torch import Tensor

from hierarchical_lvae.layout import ParameterLayout


class LocalSites(Messenger):
    """Set the local sites `names` to their prior means, and record values and priors by site.

    A site that is Delta at its meta-parameter (τ = 0) is not random: it is set but not recorded.

    >>> import pyro, torch
    >>> def program():
    ...     with pyro.plate("neighbourhood", 3, dim=-2):
    ...         return pyro.sample("theta_N", dist.Normal(torch.ones(4), 0.5).to_event(1))
    >>> with LocalSites({"theta_N"}) as local:
    ...     program().shape
    torch.Size([3, 1, 4])
    >>> local.values["theta_N"].stride(0), variance(local.prior["theta_N"])
    (0, tensor([[[0.2500]]]))

    Raises:
        ValueError: a local site is neither Normal nor Delta, lies in the plate of points, is scaled, or is conditioned
            on values of the wrong shape.
    """

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self.names = frozenset(names)
        self.seen: set[str] = set()
        self.values: dict[str, Tensor] = {}
        self.prior: dict[str, dist.TorchDistribution] = {}
        self.layout: dict[str, ParameterLayout | None] = {}
        self.num_neighbours: int | None = None

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        name = msg["name"]
        if name not in self.names:
            return
        self.seen.add(name)
        prior = msg["fn"]
        if not isinstance(base(prior), dist.Normal | dist.Delta):
            raise ValueError(
                f"the local site {name!r} is {type(base(prior)).__name__}: "
                "it must be Normal around its meta-parameter (or Delta, for no locality)"
            )
        if among_points := [frame.name for frame in msg["cond_indep_stack"] if frame.dim == -1]:
            raise ValueError(
                f"the local site {name!r} lies in the plate {among_points[0]!r} at dim -1, the dimension of points: "
                "put it only in the plate of neighbourhoods, at dim -2"
            )
        if msg["scale"] != 1 and isinstance(base(prior), dist.Normal):
            raise ValueError(
                f"the local site {name!r} is scaled by {msg['scale']} (by a subsampling plate or poutine.scale), which "
                "would scale its step, too: subsample the neighbourhoods before calling the program"
            )
        if msg["value"] is not None and msg["value"].shape != prior.shape():
            raise ValueError(
                f"the local values of {name!r} have shape {tuple(msg['value'].shape)}, not {tuple(prior.shape())}: "
                "there must be as many queries as support sets"
            )
        if msg["value"] is None:
            mean = prior.mean
            # with frozen meta-parameters, the local values must still be differentiable
            msg["value"] = mean if mean.requires_grad else mean.detach().requires_grad_()
        if isinstance(base(prior), dist.Normal):
            self.values[name] = msg["value"]
            self.prior[name] = prior
            self.layout[name] = msg["infer"].get("layout")
            self.num_neighbours = msg["infer"].get("num_neighbours", self.num_neighbours)


def base(prior: dist.TorchDistribution) -> dist.TorchDistribution:
    """Strip the `to_event` off a distribution."""
    while isinstance(prior, dist.Independent):
        prior = prior.base_dist
    return prior


def variance(prior: dist.TorchDistribution) -> Tensor:
    """τ² of a local site, broadcastable to (B, 1, P): expanded dimensions keep size 1."""
    scale = base(prior).scale
    for dim, stride in enumerate(scale.stride()):
        if stride == 0:
            scale = scale.narrow(dim, 0, 1)
    return scale.square()
