from .compare import Comparison as Comparison
from .compare import Row as Row
from .compare import compare as compare
from .measure import Settings as Settings

BLOCK_METHODS: tuple[str, ...]
DEFAULT_METHODS: tuple[str, ...]
