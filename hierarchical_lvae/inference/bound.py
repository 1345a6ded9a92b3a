"""Equation 1 at given local parameters: the negative ELBO of each neighbourhood, computed from two Pyro traces.

    L(θ_N, φ_N; x) = −E_{q(z | x, φ_N)} log p(x | z, θ_N) + β KL(q(z | x, φ_N) ‖ p(z))

with β = 1 in the paper. The function is used twice: summed over the K neighbours it gives the local loss ℓ_N of
Equations 7 and 8; evaluated at the query it gives the global objective of Equation 6.

This module does not depend on images or networks. The program must keep its points inside two plates, neighbourhoods
at dimension −2 and points at −1, and every latent site must be reparameterised, because we differentiate through the
step. A KL is analytic if it has a closed form and model and guide sample their sites in the same order (mean field);
otherwise it is the difference of log densities at the draw, which is unbiased.
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
from hierarchical_lvae.layout import ParameterLayout
from hierarchical_lvae.types import Latent, LocalLossAt, Observation

PyroProgram = Callable[[Any], Any]


def trace_pair(
    model: PyroProgram, guide: PyroProgram, data: Any, local: LocalSites, values: Mapping[str, Tensor]
) -> tuple[Trace, Trace]:
    """Trace the guide, and the model replayed against it, at local `values` (B, 1, P) or else the prior means."""
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
    """Estimate the negative ELBO of each neighbourhood from one sample, with an analytic KL where one exists.

    Args:
        model, guide: Pyro programs of one argument.
        data: that argument, a tensor or a tuple (points in plates of B × K).
        sites: the names of the local sites; their own densities are left out of the loss.
        values: the local values, (B, 1, P) by site; a site without a value stays at its prior mean.
        beta: weight of the KL of the latent sites.

    Returns:
        The loss (B,) in nats, together with the local values, priors, likelihood factors and codes behind it.

    Raises:
        ValueError: the program has no local site; a latent site is not reparameterised, or is missing from the model
            or the guide; or a site lies outside the plates of neighbourhoods and points.
    """
    local, parameters, pairs, mean_field = _matched(model, guide, data, sites, values)
    terms, observations, latent = [], [], {}
    for name, site, guide_site in pairs:
        if guide_site is None:
            term = -_log_prob(site)
            observations.append(Observation(site["fn"], site["value"], _weight(site)))
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
    """log p(x, z | θ_N) − log q(z | x, φ_N) of each point, at one draw of z from the guide: (B, K), in nats.

    Their exponentials are unbiased estimates of p(x | θ_N). The arguments are those of `negative_elbo`.

    Raises:
        ValueError: the program has no local site, the latent sites of model and guide differ, or a site does not have
            one term per point.
    """
    terms: list[Tensor] = []
    for name, site, guide_site in _matched(model, guide, data, sites, values).pairs:
        term = _log_prob(site) if guide_site is None else _log_prob(site) - _log_prob(guide_site)
        if term.dim() < 2 or (terms and term.shape[-2:] != terms[0].shape[-2:]):
            raise ValueError(f"the site {name!r} does not have one term per point: put it inside both plates")
        terms.append(term.reshape(-1, *term.shape[-2:]).sum(0))
    return torch.stack(terms).sum(0)


class _Matched(NamedTuple):
    local: LocalSites
    parameters: dict[str, ParameterLayout | None]
    pairs: list[tuple[str, dict[str, Any], dict[str, Any] | None]]
    """The model's other sites, each paired with the guide's site, or with None if it is observed."""
    mean_field: bool
    """Whether model and guide sample them in the same order."""


def _matched(
    model: PyroProgram, guide: PyroProgram, data: Any, sites: Collection[str], values: Mapping[str, Tensor] | None
) -> _Matched:
    local = LocalSites(sites)
    model_trace, guide_trace = trace_pair(model, guide, data, local, values or {})
    if not local.seen:
        raise ValueError(
            f"no local site: neither model nor guide samples any of {', '.join(sorted(sites))}: name yours in `sites`"
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
        raise ValueError(f"the model's latent site {min(missing)!r} is not in the guide: sample it there, too")
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
        raise ValueError(
            f"the latent site {name!r} is not reparameterised, so the local step cannot be differentiated: "
            "use a distribution with `rsample` in the guide"
        )
    if mean_field:
        with suppress(NotImplementedError):
            kl = analytic_kl(guide_site["fn"], model_site["fn"])
            return scale_and_mask(kl, guide_site["scale"], guide_site["mask"])
    return _log_prob(guide_site) - _log_prob(model_site)


def analytic_kl(q: dist.TorchDistribution, p: dist.TorchDistribution) -> Tensor:
    """KL(q ‖ p) in nats, batch shape (..., B, K), in a form that can be differentiated twice.

    For Normals we use log σ directly, and take it from the attribute `log_scale` if there is one (as for the codes of
    the Local VAE), so that it is not recomputed from σ. PyTorch uses log σ², whose second derivative overflows in
    single precision for σ below 1e-10; that of log σ overflows below 1e-19. Encoders do reach such values, because
    nothing constrains the σ that they predict before the local step.

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
        raise ValueError(
            f"the site {name!r} lies outside the plates of neighbourhoods (dim −2) and points (dim −1): move it in"
        )
    return term.movedim(-2, 0).flatten(1).sum(1)
