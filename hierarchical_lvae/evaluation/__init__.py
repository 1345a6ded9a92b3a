"""Metrics of codes, images and posteriors: functions of arrays that do not depend on any model."""

import lazy_loader

METRICS = {
    "dci": "hierarchical_lvae.evaluation.importance:dci",
    "mig": "hierarchical_lvae.evaluation.information:mig",
    "sap": "hierarchical_lvae.evaluation.predictability:sap",
    "factor-vae": "hierarchical_lvae.evaluation.fixed_factor:factor_vae_score",
    "beta-vae": "hierarchical_lvae.evaluation.fixed_factor:beta_vae_score",
    "modularity": "hierarchical_lvae.evaluation.information:modularity",
}
"""Metrics of disentanglement by name, as "module:attribute": functions of codes and factors that also accept, if they
need them, the keyword arguments codes_test, factors_test and seed."""

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
