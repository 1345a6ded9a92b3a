"""The Pyro programs: the Local VAE, reference programs with closed-form solutions, and MAML's sinusoid regression."""

import lazy_loader

LIKELIHOODS = {
    "bernoulli": "hierarchical_lvae.models.likelihoods:Bernoulli",
    "gaussian": "hierarchical_lvae.models.likelihoods:Gaussian",
    "gaussian-learned": "hierarchical_lvae.models.likelihoods:learned_gaussian",
    "continuous-bernoulli": "hierarchical_lvae.models.likelihoods:ContinuousBernoulli",
}
"""Likelihoods by name, as "module:attribute" strings for `pkgutil.resolve_name`; each is built without arguments."""

ACTIVATIONS = {
    "relu": "hierarchical_lvae.models.local_ops:relu",
    "softplus": "torch.nn.functional:softplus",
    "silu": "torch.nn.functional:silu",
    "tanh": "torch:tanh",
}
"""Activations by name. All except ReLU are smooth enough for finite differences of the meta-loss."""

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
