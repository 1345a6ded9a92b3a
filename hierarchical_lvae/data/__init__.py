"""Images with (and without) known factors of variation, as uint8, and the replica that renders 3D Shapes."""

import lazy_loader

DATASETS = {
    "3dshapes": "hierarchical_lvae.data.shapes3d:load",
    "digits": "hierarchical_lvae.data.digits:load",
}
"""Data sets by name, each a function of the data directory: "module:attribute", for `pkgutil.resolve_name`."""

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
