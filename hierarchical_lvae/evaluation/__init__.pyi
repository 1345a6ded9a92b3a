from .calibration import calibration_error as calibration_error
from .calibration import coverage as coverage
from .fixed_factor import BetaVaeScore as BetaVaeScore
from .fixed_factor import FactorVaeScore as FactorVaeScore
from .fixed_factor import beta_vae_score as beta_vae_score
from .fixed_factor import factor_vae_score as factor_vae_score
from .importance import Dci as Dci
from .importance import dci as dci
from .importance import dci_from_importance as dci_from_importance
from .information import Mig as Mig
from .information import Modularity as Modularity
from .information import mig as mig
from .information import modularity as modularity
from .information import mutual_information as mutual_information
from .posterior import Loo as Loo
from .posterior import loo as loo
from .posterior import merge as merge
from .posterior import pareto_k as pareto_k
from .posterior import plot_density as plot_density
from .posterior import plot_forest as plot_forest
from .posterior import save as save
from .posterior import summarise as summarise
from .posterior import to_arviz as to_arviz
from .predictability import Sap as Sap
from .predictability import sap as sap

METRICS: dict[str, str]
