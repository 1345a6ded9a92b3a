"""How much is computed, and with which seeds; the settings are saved with each result."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from hierarchical_lvae.analysis import CODES, FEATURES
from hierarchical_lvae.runs.options import LARGEST, SEEDS, check_ranges
from hierarchical_lvae.types import suggestion

IWAE_DRAWS = (1, 10, 100, 1_000, 5_000)


@dataclass(frozen=True)
class ScoreSettings:
    """Settings of the scores. The defaults are those of the literature, where it has any."""

    codes: str = "local"
    """The encoder whose codes are scored; a member of `CODES`."""
    seed: int = 0
    train: int = 10_000
    """Number of points that classifiers are fitted on."""
    test: int = 5_000
    """Number of points that they are tested on."""
    neighbourhoods: int = 16
    """Number of neighbourhoods for the likelihood and for the closeness of samples."""
    draws: int = IWAE_DRAWS[-1]
    """Draws of the codes for the likelihood."""
    images: int = 50_000
    """Number of generated and of real images for the Fréchet distance; never more real ones than there are."""
    features: str = "auto"
    """Features of that distance; a member of `FEATURES`."""
    inception_weights: str | Path | None = None
    """File of the Inception weights, if it is not where torch hub keeps it."""

    RANGES: ClassVar = {"seed": SEEDS, "images": (5, LARGEST)}

    def within(self, size: int) -> "ScoreSettings":
        """The same settings with at most `size` points, in the same proportion.

        >>> fewer = ScoreSettings(train=100, test=50).within(60)
        >>> fewer.train, fewer.test
        (40, 20)
        """
        wanted = self.train + self.test
        train = size * self.train // wanted
        return self if wanted <= size else replace(self, train=train, test=size - train)

    def check(self) -> None:
        """Check names and numbers before anything is computed.

        Raises:
            ValueError: no codes or features have that name, or a number is out of range.
        """
        if self.codes not in CODES:
            raise ValueError(f"no codes are called {self.codes!r}: {suggestion(self.codes, CODES)}")
        if self.features not in FEATURES:
            raise ValueError(f"no features are called {self.features!r}: {suggestion(self.features, FEATURES)}")
        check_ranges(self)


@dataclass(frozen=True)
class ComparisonSettings:
    """Settings of a comparison."""

    neighbourhoods: int = 8
    """R, the number of neighbourhoods for the methods that infer all local weights."""
    reference_neighbourhoods: int = 2
    """How many of these the methods of the block use; NUTS takes one to five minutes for each."""
    num_draws: int = 200
    """S, the number of draws of the local weights from each posterior; NUTS draws half of them in each of 2 chains."""
    num_codes: int = 10
    """Draws of the codes for each of these. A point estimate gets S times as many, so that the total is the same."""
    warmup_steps: int = 250
    """Warm-up steps of each NUTS chain."""
    seed: int = 0

    RANGES: ClassVar = {"neighbourhoods": (1, 10_000), "num_draws": (50, 100_000), "seed": SEEDS}

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.num_draws % 2:
            raise ValueError(f"num draws is {self.num_draws}: it must be even")
