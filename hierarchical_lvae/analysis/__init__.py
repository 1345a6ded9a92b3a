"""Measures of a run: scores of its codes, images and likelihood, and comparisons of local posteriors."""

import lazy_loader

from hierarchical_lvae.evaluation import METRICS

OF_RUN = {
    "swap": "hierarchical_lvae.analysis.swap:swap",
    "fid": "hierarchical_lvae.analysis.images:distance",
    "samples": "hierarchical_lvae.analysis.images:closeness",
    "iwae": "hierarchical_lvae.analysis.bounds:likelihood",
}
"""Scores of a whole run, as "module:attribute": functions of the run and of the settings that they depend on."""

SCORES = (*METRICS, *OF_RUN)
"""All scores that `score` can compute."""

CODES = ("local", "meta")

FEATURES = ("auto", "inception", "factors")
"""Features of the Fréchet distance: Inception's, those of a factor classifier, or the first that is available."""

BLOCK_METHODS = ("laplace-block", "nuts")
"""Methods for a block of the local weights; the others are the keys of `LOCAL_INFERENCE`."""
DEFAULT_METHODS = ("shared", "one-step", "multi-step", "laplace", "laplace-low-rank", *BLOCK_METHODS)

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
