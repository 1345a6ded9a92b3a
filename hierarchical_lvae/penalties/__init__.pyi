from .annealed import Annealed as Annealed
from .build import build_penalty as build_penalty
from .build import with_weight as with_weight
from .dip import DIP as DIP
from .dip import dip_i as dip_i
from .dip import dip_ii as dip_ii
from .factor import Factor as Factor
from .total_correlation import TotalCorrelation as TotalCorrelation

PENALTIES: dict[str, str]
