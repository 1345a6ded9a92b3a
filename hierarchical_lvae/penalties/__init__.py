"""Objectives of other papers as terms of the global loss, on a batch of codes: for the plain VAE and the Local VAE."""

import lazy_loader

PENALTIES = {
    "annealed": "hierarchical_lvae.penalties.annealed:Annealed",
    "factor": "hierarchical_lvae.penalties.factor:Factor",
    "dip-i": "hierarchical_lvae.penalties.dip:dip_i",
    "dip-ii": "hierarchical_lvae.penalties.dip:dip_ii",
    "tc": "hierarchical_lvae.penalties.total_correlation:TotalCorrelation",
}
"""Penalties by name, as "module:attribute" strings for `pkgutil.resolve_name`; each is called with the weight, see
`build`."""

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
