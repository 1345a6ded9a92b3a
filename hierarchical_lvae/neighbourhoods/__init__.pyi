from .build import Neighbourhood as Neighbourhood
from .build import Surroundings as Surroundings
from .build import build_neighbourhood as build_neighbourhood

NEIGHBOURHOODS: dict[str, str]
