from .bounds import likelihood as likelihood
from .codes import Encoded as Encoded
from .codes import encode as encode
from .codes import geometry as geometry
from .images import closeness as closeness
from .images import distance as distance
from .scores import model_digest as model_digest
from .scores import read_scores as read_scores
from .scores import score as score
from .settings import Settings as Settings

SCORES: tuple[str, ...]
CODES: tuple[str, ...]
FEATURES: tuple[str, ...]
