from .factor_analysis import FactorAnalysis as FactorAnalysis
from .linear_regression import LocalLinearRegression as LocalLinearRegression
from .local_vae import LocalVAE as LocalVAE
from .points import PointVAE as PointVAE
from .sinusoid import Sinusoid as Sinusoid

LIKELIHOODS: dict[str, str]
ACTIVATIONS: dict[str, str]
