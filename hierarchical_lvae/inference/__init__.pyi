from .adaptation import MultiStepMAP as MultiStepMAP
from .adaptation import OneStepMAP as OneStepMAP
from .adaptation import Shared as Shared
from .diagnostics import AdaptationInfo as AdaptationInfo
from .diagnostics import diagnose as diagnose
from .elbo import LocalELBO as LocalELBO
from .evidence import Evidence as Evidence
from .evidence import estimate_evidence as estimate_evidence
from .evidence import reestimate as reestimate
from .exact import ExactMAP as ExactMAP
from .laplace import ByChannel as ByChannel
from .laplace import Dense as Dense
from .laplace import Diagonal as Diagonal
from .laplace import Laplace as Laplace
from .laplace import LowRank as LowRank

LOCAL_INFERENCE: dict[str, str]
