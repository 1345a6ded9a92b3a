"""Find the first non-finite site of the programs, to explain a loss that is not finite.

The programs are run again and each site is checked as it is sampled, in this order: the guide and the model on the
neighbours, then, under the resulting local parameters, the guide and the model on the queries. For each site, the
parameters of its distribution are checked first, then its value, then its log density.
"""

from collections.abc import Collection
from typing import Any

import pyro
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from hierarchical_lvae.inference.bound import PyroProgram
from hierarchical_lvae.inference.elbo import LocalELBO
from hierarchical_lvae.inference.sites import base


class NotFinite(Exception):
    """A site is not finite: the message names the site, its program and its data."""


class Watched:
    """A `LocalELBO` whose `differentiable_loss` checks that each site is finite.

    >>> import torch
    >>> from hierarchical_lvae.inference import OneStepMAP
    >>> from hierarchical_lvae.models import LocalVAE
    >>> vae = LocalVAE(alpha=1.0, num_neighbours=2, image_shape=(1, 8, 8), latent_dim=3)
    >>> query, support = torch.rand(5, 1, 8, 8), torch.rand(5, 2, 1, 8, 8)
    >>> vae.phi.data[0] = torch.nan
    >>> Watched(LocalELBO(OneStepMAP())).differentiable_loss(vae.model, vae.guide, query, support)
    Traceback (most recent call last):
    hierarchical_lvae.inference.finite.NotFinite: phi_N, at its prior mean
    """

    def __init__(self, elbo: LocalELBO) -> None:
        self.elbo = elbo

    def differentiable_loss(self, model: PyroProgram, guide: PyroProgram, query: Any, support: Any) -> Tensor:
        """Compute the loss of the ELBO, in nats, summed over the B queries.

        Raises:
            NotFinite: at the first site, or the first input, that is not finite.
        """

        def watched(program: PyroProgram, name: str) -> PyroProgram:
            def run(data: Any) -> Any:
                inner = data is support
                for part in data if isinstance(data, tuple) else (data,):
                    if not part.isfinite().all():
                        raise NotFinite(f"the data of the {'neighbours' if inner else 'queries'}")
                with _Watch(self.elbo.sites, inner, name):
                    return program(data)

            return run

        with pyro.validation_enabled(False):  # validation would raise first, without naming the site
            return self.elbo.differentiable_loss(watched(model, "model"), watched(guide, "guide"), query, support)


class _Watch(Messenger):
    """Checks each site during one run of a program."""

    def __init__(self, local: Collection[str], inner: bool, program: str) -> None:
        super().__init__()
        self.local, self.inner = local, inner
        self.where = f"of the {'neighbours' if inner else 'queries'}, in the {program}"

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        name, value = msg["name"], msg["value"]
        if site_is_subsample(msg):
            return
        if name in self.local:
            if not value.isfinite().all():
                raise NotFinite(f"{name}, {'at its prior mean' if self.inner else 'after the local step'}")
            return
        inner = base(msg["fn"])
        for parameter in inner.arg_constraints:
            number = vars(inner).get(parameter)
            if isinstance(number, Tensor) and not number.isfinite().all():
                raise NotFinite(f"{parameter} of {name} ({self.where})")
        if not value.isfinite().all():
            raise NotFinite(f"the value of {name} ({self.where})")
        if not msg["fn"].log_prob(value).isfinite().all():
            raise NotFinite(f"the log density of {name} ({self.where})")
