from .adaptation import MultiStepMAP as MultiStepMAP
from .adaptation import OneStepMAP as OneStepMAP
from .adaptation import Shared as Shared
from .diagnostics import AdaptationInfo as AdaptationInfo
from .diagnostics import diagnose as diagnose
from .elbo import LocalELBO as LocalELBO

LOCAL_INFERENCE: dict[str, str]
