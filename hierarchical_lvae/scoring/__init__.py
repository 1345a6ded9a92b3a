"""A trained run, scored: its codes, its images and their likelihood, one score after the other."""

import lazy_loader

from hierarchical_lvae.evaluation import METRICS

SCORES = (*METRICS, "fid", "samples", "iwae")
"""What `score` can compute."""

CODES = ("local", "meta")

FEATURES = ("auto", "inception", "factors")
"""What a Fréchet distance sees: Inception, the classifier of the data's factors, or the one for want of the other."""

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
