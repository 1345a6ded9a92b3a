"""Measures of codes, images and posteriors: functions of arrays, which know of no model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
