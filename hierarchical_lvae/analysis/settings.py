"""How much is computed, and how it is drawn: part of each result."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from hierarchical_lvae.analysis import CODES, FEATURES
from hierarchical_lvae.runs.options import LARGEST, SEEDS, check_ranges
from hierarchical_lvae.types import suggestion

IWAE_DRAWS = (1, 10, 100, 1_000, 5_000)


@dataclass(frozen=True)
class ScoreSettings:
    """The numbers are the field's, where it has them."""

    codes: str = "local"
    """Of which encoder; a member of `CODES`."""
    seed: int = 0
    train: int = 10_000
    """Points that classifiers are fitted on."""
    test: int = 5_000
    """And tested on."""
    neighbourhoods: int = 16
    """For the likelihood, and for the closeness of samples."""
    draws: int = IWAE_DRAWS[-1]
    """Of the codes, for the likelihood."""
    images: int = 50_000
    """Generated and real ones, for the Fréchet distance; never more real ones than there are."""
    features: str = "auto"
    """What that distance sees; a member of `FEATURES`."""
    inception_weights: str | Path | None = None
    """Where Inception's weights are, if not where torch hub keeps them."""

    RANGES: ClassVar = {"seed": SEEDS, "images": (5, LARGEST)}

    def within(self, size: int) -> "ScoreSettings":
        """The same, with no more points than there are, in the same proportion.

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
            ValueError: no codes or features have such a name, or a number is out of its range.
        """
        if self.codes not in CODES:
            raise ValueError(f"no codes are called {self.codes!r}: {suggestion(self.codes, CODES)}")
        if self.features not in FEATURES:
            raise ValueError(f"no features are called {self.features!r}: {suggestion(self.features, FEATURES)}")
        check_ranges(self)


@dataclass(frozen=True)
class ComparisonSettings:
    """How much to compute."""

    neighbourhoods: int = 8
    """R, for the methods that infer all local weights."""
    reference_neighbourhoods: int = 2
    """Of these, for the methods of the block; NUTS takes one to five minutes for each."""
    num_draws: int = 200
    """S, of the local weights from each posterior; NUTS gives them in two chains together."""
    num_codes: int = 10
    """Draws of the codes for each of these. A point gets S times as many: the same number in all."""
    warmup_steps: int = 250
    """Of each chain of NUTS."""
    seed: int = 0

    RANGES: ClassVar = {"neighbourhoods": (1, 10_000), "num_draws": (50, 100_000), "seed": SEEDS}

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.num_draws % 2:
            raise ValueError(f"num draws is {self.num_draws}: it must be even")
