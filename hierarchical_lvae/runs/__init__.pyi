from .directory import read_options as read_options
from .options import PRESETS as PRESETS
from .options import FitOptions as FitOptions
from .pretrained import copy_pretrained as copy_pretrained
from .run import Run as Run
from .run import load_run as load_run
from .run import prepare as prepare

PRETRAINED: dict[str, tuple[str, str]]
