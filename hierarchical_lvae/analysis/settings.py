"""How much is computed, and how it is drawn: part of each result."""

from pathlib import Path
from typing import NamedTuple

from hierarchical_lvae.analysis import CODES, FEATURES
from hierarchical_lvae.types import nearest

IWAE_DRAWS = (1, 10, 100, 1_000, 5_000)


class ScoreSettings(NamedTuple):
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

    def within(self, size: int) -> "ScoreSettings":
        """The same, with no more points than there are, in the same proportion.

        >>> ScoreSettings(train=100, test=50).within(60)[2:4]
        (40, 20)
        """
        wanted = self.train + self.test
        train = size * self.train // wanted
        return self if wanted <= size else self._replace(train=train, test=size - train)

    def check(self) -> None:
        """Check names and numbers before anything is computed.

        Raises:
            ValueError: no codes or features have such a name, or a number is out of its range.
        """
        if self.codes not in CODES:
            raise ValueError(f"no codes are called {self.codes!r}: {nearest(self.codes, CODES)}")
        if self.features not in FEATURES:
            raise ValueError(f"no features are called {self.features!r}: {nearest(self.features, FEATURES)}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}: it must be from 0 to {2**32 - 1}, as NumPy's are")
        for name in ("train", "test", "neighbourhoods", "draws", "images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
