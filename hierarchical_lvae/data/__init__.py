"""Image data sets as uint8, with or without known factors of variation: named data sets, and the user's own."""

import lazy_loader

DATASETS = {
    "3dshapes": "hierarchical_lvae.data.shapes3d:load",
    "digits": "hierarchical_lvae.data.digits:load",
    "cars3d": "hierarchical_lvae.data.cars3d:load",
    "smallnorb": "hierarchical_lvae.data.smallnorb:load",
    "carsnorb": "hierarchical_lvae.data.carsnorb:load",
    "dsprites": "hierarchical_lvae.data.dsprites:load",
}
"""Data sets by name, as "module:attribute" strings for `pkgutil.resolve_name`: each is a function of the data
directory. Its module may set the default `NEIGHBOURHOOD`, which is noise otherwise."""

FRAMES = ("crop", "pad")
"""How the user's own images are made square."""

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
