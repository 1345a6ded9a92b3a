from .directory import default_data_dir as default_data_dir
from .factor_images import FactorImages as FactorImages
from .factor_images import Part as Part
from .load import default_neighbourhood as default_neighbourhood
from .load import load_dataset as load_dataset
from .load import load_own as load_own

DATASETS: dict[str, str]
FRAMES: tuple[str, ...]
