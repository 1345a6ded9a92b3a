from .bounds import likelihood as likelihood
from .codes import Encoded as Encoded
from .codes import encode as encode
from .codes import geometry as geometry
from .images import closeness as closeness
from .images import distance as distance
from .scores import model_digest as model_digest
from .scores import score as score
from .settings import Settings as Settings
from .store import is_read_only as is_read_only
from .store import read_scores as read_scores

SCORES: tuple[str, ...]
CODES: tuple[str, ...]
FEATURES: tuple[str, ...]
