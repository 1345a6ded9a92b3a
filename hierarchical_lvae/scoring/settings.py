"""How much is computed, and how it is drawn: part of each result."""

from pathlib import Path
from typing import NamedTuple

IWAE_DRAWS = (1, 10, 100, 1_000, 5_000)


class Settings(NamedTuple):
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
    inception_weights: Path | None = None
    """Where Inception's weights are, if not where torch hub keeps them."""

    def within(self, size: int) -> "Settings":
        """The same, with no more points than there are, in the same proportion.

        >>> Settings(train=100, test=50).within(60)[2:4]
        (40, 20)
        """
        wanted = self.train + self.test
        train = size * self.train // wanted
        return self if wanted <= size else self._replace(train=train, test=size - train)
