"""Measures of codes, images and posteriors: functions of arrays, which know of no model."""

import lazy_loader

METRICS = {
    "dci": "hierarchical_lvae.evaluation.importance:dci",
    "mig": "hierarchical_lvae.evaluation.information:mig",
    "sap": "hierarchical_lvae.evaluation.predictability:sap",
    "factor-vae": "hierarchical_lvae.evaluation.fixed_factor:factor_vae_score",
    "beta-vae": "hierarchical_lvae.evaluation.fixed_factor:beta_vae_score",
    "modularity": "hierarchical_lvae.evaluation.information:modularity",
}
"""Measures of disentanglement by name: "module:attribute". All take codes, factors and a seed where one is needed."""

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
