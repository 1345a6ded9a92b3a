"""Neighbourhoods: ways to choose the K neighbours of a data point."""

import lazy_loader

NEIGHBOURHOODS = {
    "noise": "hierarchical_lvae.neighbourhoods.noise:ObservationNoise",
    "noise-mean": "hierarchical_lvae.neighbourhoods.noise_mean:NoiseMean",
    "input-knn": "hierarchical_lvae.neighbourhoods.pixels:NearestPixels",
    "latent-knn": "hierarchical_lvae.neighbourhoods.latent:NearestCodes",
    "labels": "hierarchical_lvae.neighbourhoods.labels:SharedLabels",
    "graph": "hierarchical_lvae.neighbourhoods.graph:Graph",
}
"""Neighbourhoods by name, as "module:attribute" strings for `pkgutil.resolve_name`. The text after a colon, as in
graph:FILE, is passed to the constructor as `argument`."""

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
