"""Images with (and without) known factors of variation, as uint8: data sets by name, and the user's own."""

import lazy_loader

DATASETS = {
    "3dshapes": "hierarchical_lvae.data.shapes3d:load",
    "digits": "hierarchical_lvae.data.digits:load",
    "cars3d": "hierarchical_lvae.data.cars3d:load",
    "smallnorb": "hierarchical_lvae.data.smallnorb:load",
    "carsnorb": "hierarchical_lvae.data.carsnorb:load",
    "dsprites": "hierarchical_lvae.data.dsprites:load",
}
"""Data sets by name, each a function of the data directory: "module:attribute", for `pkgutil.resolve_name`. Its module
may name the `NEIGHBOURHOOD` that suits it; else that is the noise."""

FRAMES = ("crop", "pad")
"""How the user's own images are made square."""

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
