from .bounds import likelihood as likelihood
from .codes import Encoded as Encoded
from .codes import encode as encode
from .codes import geometry as geometry
from .compare import Comparison as Comparison
from .compare import compare as compare
from .images import closeness as closeness
from .images import distance as distance
from .measure import Measured as Measured
from .scores import model_digest as model_digest
from .scores import outdated as outdated
from .scores import score as score
from .settings import ComparisonSettings as ComparisonSettings
from .settings import ScoreSettings as ScoreSettings
from .store import is_read_only as is_read_only
from .store import key_of as key_of
from .store import read_scores as read_scores
from .swap import swap as swap

OF_RUN: dict[str, str]
SCORES: tuple[str, ...]
CODES: tuple[str, ...]
FEATURES: tuple[str, ...]
BLOCK_METHODS: tuple[str, ...]
DEFAULT_METHODS: tuple[str, ...]
