"""Local posteriors of a run side by side: MAP, Laplace, and the truth by NUTS."""

import lazy_loader

BLOCK_METHODS = ("laplace-block", "nuts")
"""Methods for a block of a few dozen local weights; the others are the keys of `LOCAL_INFERENCE`."""
DEFAULT_METHODS = ("shared", "one-step", "multi-step", "laplace", "laplace-low-rank", *BLOCK_METHODS)

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
