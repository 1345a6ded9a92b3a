"""What a run is measured by: scores of its codes, images and likelihood, and local posteriors side by side."""

import lazy_loader

from hierarchical_lvae.evaluation import METRICS

OF_RUN = {
    "swap": "hierarchical_lvae.analysis.swap:swap",
    "fid": "hierarchical_lvae.analysis.images:distance",
    "samples": "hierarchical_lvae.analysis.images:closeness",
    "iwae": "hierarchical_lvae.analysis.bounds:likelihood",
}
"""Scores of a run as a whole: "module:attribute", each a function of the run and of the settings that it depends on."""

SCORES = (*METRICS, *OF_RUN)
"""What `score` can compute."""

CODES = ("local", "meta")

FEATURES = ("auto", "inception", "factors")
"""What a Fréchet distance sees: Inception, the classifier of the data's factors, or the one for want of the other."""

BLOCK_METHODS = ("laplace-block", "nuts")
"""Methods for a block of a few dozen local weights; the others are the keys of `LOCAL_INFERENCE`."""
DEFAULT_METHODS = ("shared", "one-step", "multi-step", "laplace", "laplace-low-rank", *BLOCK_METHODS)

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
