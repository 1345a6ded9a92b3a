"""Inference on a neighbourhood: adaptation (Eqs. 7, 8), local posteriors, and the bound (Eqs. 3 to 6)."""

import lazy_loader

LOCAL_INFERENCE = {
    "shared": "hierarchical_lvae.inference.adaptation:Shared",
    "one-step": "hierarchical_lvae.inference.adaptation:OneStepMAP",
    "multi-step": "hierarchical_lvae.inference.adaptation:MultiStepMAP",
    "exact": "hierarchical_lvae.inference.exact:ExactMAP",
    "laplace-exact": "hierarchical_lvae.inference.laplace:laplace_exact",
    "laplace": "hierarchical_lvae.inference.laplace:laplace_diagonal",
    "laplace-low-rank": "hierarchical_lvae.inference.laplace:laplace_low_rank",
    "laplace-last-layer": "hierarchical_lvae.inference.laplace:laplace_last_layer",
}
"""Local inference methods by name, as "module:attribute" strings for `pkgutil.resolve_name`."""

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
