"""The Pyro programs: the Local VAE, the truth programs with closed forms, and MAML's sinusoid."""

import lazy_loader

LIKELIHOODS = {
    "bernoulli": "hierarchical_lvae.models.likelihoods:Bernoulli",
    "gaussian": "hierarchical_lvae.models.likelihoods:Gaussian",
    "gaussian-learned": "hierarchical_lvae.models.likelihoods:learned_gaussian",
    "continuous-bernoulli": "hierarchical_lvae.models.likelihoods:ContinuousBernoulli",
}
"""Likelihoods by name, each made without arguments: "module:attribute", to be read by `pkgutil.resolve_name`."""

ACTIVATIONS = {
    "relu": "hierarchical_lvae.models.local_ops:relu",
    "softplus": "torch.nn.functional:softplus",
    "silu": "torch.nn.functional:silu",
    "tanh": "torch:tanh",
}
"""Activations by name. All but ReLU are smooth enough for finite differences of the meta-loss."""

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
