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
"""Measures of disentanglement by name, "module:attribute": each of codes and factors, and (by these names) of
codes_test, factors_test and a seed where it needs them."""

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
