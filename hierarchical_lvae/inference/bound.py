"""Equation 1, given the local parameters: the negative ELBO of each neighbourhood, read off two Pyro traces.

    L(θ_N, φ_N; x) = −E_{q(z | x, φ_N)} log p(x | z, θ_N) + β KL(q(z | x, φ_N) ‖ p(z))

The same function serves twice: on the support set, where its sum over the K neighbours is the local loss ℓ_N of
Equations 7 and 8, and on the query, where it is the global objective of Equation 6.

Nothing here knows of images or networks. The program must only keep its points inside two plates, neighbourhoods at
dimension −2 and points at −1; every latent site must be reparameterised, for the step is differentiated through.
A KL is analytic if there is a closed form and model and guide sample their sites in the same order (mean field);
else it is the difference of log densities at the draw, which is right on average.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask, sum_rightmost
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import kl_divergence

from hierarchical_lvae.inference.sites import LocalSites, base
from hierarchical_lvae.types import Latent, LocalLossAt, Observation, ParameterLayout

PyroProgram = Callable[[Any], Any]


def trace_pair(
    model: PyroProgram, guide: PyroProgram, data: Any, local: LocalSites, values: Mapping[str, Tensor]
) -> tuple[Trace, Trace]:
    """Run the guide, and the model against it, the local sites at `values` (B, 1, P) or else at their prior means."""
    with local:
        guide_trace = poutine.trace(poutine.condition(guide, data=values)).get_trace(data)
        conditioned = poutine.condition(model, data=values)
        model_trace = poutine.trace(poutine.replay(conditioned, trace=guide_trace)).get_trace(data)
    return model_trace, guide_trace


def negative_elbo(
    model: PyroProgram,
    guide: PyroProgram,
    data: Any,
    sites: Collection[str],
    values: Mapping[str, Tensor] | None = None,
    beta: float = 1.0,
) -> LocalLossAt:
    """One-sample estimate of the negative ELBO per neighbourhood, with analytic KL where there is one.

    Args:
        model, guide: Pyro programs of one argument.
        data: that argument, a tensor or a tuple (points in plates of B × K).
        sites: the names of the local sites; their own densities are not counted.
        values: the local values, (B, 1, P) by site; a site without one is at its prior mean.
        beta: weight of the KL of the latent sites.

    Returns:
        The loss (B,) in nats, with the local values, priors, factors of the likelihood and codes that it was taken at.

    Raises:
        ValueError: no local site in the program, a latent site that cannot be reparameterised or that only the
            guide has, or one outside the plate of neighbourhoods.
    """
    local, parameters, pairs, mean_field = _matched(model, guide, data, sites, values)
    terms, observations, latent = [], [], {}
    for name, site, guide_site in pairs:
        if guide_site is None:
            term = -_log_prob(site)
            observations.append(Observation(site["fn"], _weight(site)))
        else:
            kl = _kl(name, guide_site, site, mean_field)
            latent[name] = Latent(guide_site["fn"], guide_site["value"], kl)
            term = beta * kl
        terms.append(_per_neighbourhood(name, term))
    loss = torch.stack(terms).sum(0)
    return LocalLossAt(loss, local.values, local.prior, parameters, tuple(observations), latent, local.num_neighbours)


def log_weights(
    model: PyroProgram,
    guide: PyroProgram,
    data: Any,
    sites: Collection[str],
    values: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """log p(x, z | θ_N) − log q(z | x, φ_N) of each point, at one draw of z from the guide: (B, K), nats.

    Their exponentials are unbiased estimates of p(x | θ_N). Arguments are those of `negative_elbo`.

    Raises:
        ValueError: as there; or a site has no term for each point.
    """
    terms: list[Tensor] = []
    for name, site, guide_site in _matched(model, guide, data, sites, values).pairs:
        term = _log_prob(site) if guide_site is None else _log_prob(site) - _log_prob(guide_site)
        if term.dim() < 2 or (terms and term.shape[-2:] != terms[0].shape[-2:]):
            raise ValueError(f"the site {name!r} has no term for each point: it must lie in both plates")
        terms.append(term.reshape(-1, *term.shape[-2:]).sum(0))
    return torch.stack(terms).sum(0)


class _Matched(NamedTuple):
    local: LocalSites
    parameters: dict[str, ParameterLayout | None]
    pairs: list[tuple[str, dict[str, Any], dict[str, Any] | None]]
    """The model's other sites, each with the guide's; observed ones with None."""
    mean_field: bool
    """Whether model and guide have them in one order."""


def _matched(
    model: PyroProgram, guide: PyroProgram, data: Any, sites: Collection[str], values: Mapping[str, Tensor] | None
) -> _Matched:
    local = LocalSites(sites)
    model_trace, guide_trace = trace_pair(model, guide, data, local, values or {})
    if not local.seen:
        raise ValueError(
            f"no local site: neither model nor guide samples any of {', '.join(sorted(sites))}: name yours by `sites`"
        )

    model_sites, guide_sites = (
        {
            name: site
            for name, site in trace.nodes.items()
            if site["type"] == "sample" and name not in sites and not _is_bookkeeping(site)
        }
        for trace in (model_trace, guide_trace)
    )
    if unmatched := guide_sites.keys() - model_sites.keys():
        raise ValueError(f"the guide's site {min(unmatched)!r} is not in the model: name it in `sites` if it is local")
    latent = [name for name, site in model_sites.items() if not site["is_observed"]]
    if missing := set(latent) - guide_sites.keys():
        raise ValueError(f"the model's latent site {min(missing)!r} is not in the guide")
    parameters = {name: local.layout[name] for name in local.values if name in model_trace}
    pairs = [(name, site, guide_sites.get(name)) for name, site in model_sites.items()]
    return _Matched(local, parameters, pairs, latent == list(guide_sites))


def _is_bookkeeping(site: dict[str, Any]) -> bool:
    return site_is_subsample(site) or site["infer"].get("_deterministic", False)


def _log_prob(site: dict[str, Any]) -> Tensor:
    log_prob = site["fn"].log_prob(site["value"])
    return scale_and_mask(log_prob, site["scale"], site["mask"])


def _weight(site: dict[str, Any]) -> Tensor | float:
    mask = 1.0 if site["mask"] is None else site["mask"]
    return site["scale"] * (mask.to(site["value"].dtype) if isinstance(mask, Tensor) else float(mask))


def _kl(name: str, guide_site: dict[str, Any], model_site: dict[str, Any], mean_field: bool) -> Tensor:
    if not guide_site["fn"].has_rsample:
        raise ValueError(f"the latent site {name!r} is not reparameterised: the local step could not be differentiated")
    if mean_field:
        with suppress(NotImplementedError):
            kl = analytic_kl(guide_site["fn"], model_site["fn"])
            return scale_and_mask(kl, guide_site["scale"], guide_site["mask"])
    return _log_prob(guide_site) - _log_prob(model_site)


def analytic_kl(q: dist.TorchDistribution, p: dist.TorchDistribution) -> Tensor:
    """KL(q ‖ p) in nats, of the batch's shape (..., B, K), in a form that can be differentiated twice.

    Of Normals, log σ is taken as it is; where they bring it along (`log_scale`, as the Local VAE's codes do), not even
    by way of σ. PyTorch has log σ², whose second derivative overflows in single precision from σ = 1e-10 on, and that
    of log σ does from 1e-19 on; encoders come there, for what they say of σ before the local step is theirs to choose.

    Raises:
        NotImplementedError: there is no closed form.

    >>> q, p = dist.Normal(torch.tensor(1.0), 0.5), dist.Normal(torch.tensor(0.0), 2.0)
    >>> analytic_kl(q, p).isclose(kl_divergence(q, p)).item()
    True
    """
    normal = isinstance(base(q), dist.Normal) and isinstance(base(p), dist.Normal)
    if not normal or q.event_dim != p.event_dim:
        return kl_divergence(q, p)
    squares = (base(q).scale.square() + (base(q).loc - base(p).loc).square()) / base(p).scale.square()
    each = _log_scale(base(p)) - _log_scale(base(q)) + (squares - 1) / 2
    return sum_rightmost(each, q.event_dim)


def _log_scale(normal: dist.TorchDistribution) -> Tensor:
    return normal.log_scale if hasattr(normal, "log_scale") else normal.scale.log()


def _per_neighbourhood(name: str, term: Tensor) -> Tensor:
    """Sum (..., B, K) to (B,)."""
    if term.dim() < 2:
        raise ValueError(f"the site {name!r} lies outside the plates of neighbourhoods (dim −2) and points (dim −1)")
    return term.movedim(-2, 0).flatten(1).sum(1)
