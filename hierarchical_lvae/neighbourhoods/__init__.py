"""What is local: where the K neighbours of a data point come from."""

import lazy_loader

NEIGHBOURHOODS = {
    "noise": "hierarchical_lvae.neighbourhoods.noise:ObservationNoise",
}
"""Neighbourhoods by name: "module:attribute", for `pkgutil.resolve_name`."""

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
