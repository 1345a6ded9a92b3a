from .factor_images import FactorImages as FactorImages
from .factor_images import load_dataset as load_dataset

DATASETS: dict[str, str]
