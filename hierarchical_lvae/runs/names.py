"""Names in the options of a fit, and options without effect.

Names are looked up when a run is built, before its data are loaded, and not when its options are: a script may add own
names to the tables later, and the options of a run with own names must be readable without them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from hierarchical_lvae.data import DATASETS
from hierarchical_lvae.inference import LOCAL_INFERENCE
from hierarchical_lvae.models import ACTIVATIONS, LIKELIHOODS
from hierarchical_lvae.neighbourhoods import NEIGHBOURHOODS
from hierarchical_lvae.penalties import PENALTIES
from hierarchical_lvae.types import check_name

USED_BY = {"index": "input-knn", "refresh": "latent-knn"}
"""The only neighbourhood of the library that uses an option; own neighbourhoods may use it, too."""
FOR_OWN_DATA = ("frame", "skip_bad")


def names_in(options: Any) -> Iterator[tuple[str, Mapping[str, str], str]]:
    """Yield what the options name: the kind, the table and the name."""
    yield "neighbourhood", NEIGHBOURHOODS, options.neighbourhood.partition(":")[0]
    yield "local inference", LOCAL_INFERENCE, options.local
    yield "likelihood", LIKELIHOODS, options.likelihood
    yield "activation", ACTIVATIONS, options.activation
    if options.penalty is not None:
        yield "penalty", PENALTIES, options.penalty.partition(":")[0]


def check_names(options: Any) -> None:
    """Check that the tables hold the names in the options.

    Raises:
        ValueError: a name is unknown; the message suggests the nearest.
    """
    for kind, table, name in names_in(options):
        check_name(kind, name, table)


def check_effects(options: Any) -> None:
    """Check that no option is without effect because of another one.

    Raises:
        ValueError: such an option has another value than its default.
    """
    usual, kind = type(options), options.neighbourhood.partition(":")[0]
    is_ours = NEIGHBOURHOODS.get(kind, "").startswith("hierarchical_lvae.")
    for name, user in USED_BY.items():
        if is_ours and kind != user and getattr(options, name) != getattr(usual, name):
            raise ValueError(
                f"`{name}` has no effect on `neighbourhood` {kind}, only on {user}: leave it out, or choose {user}"
            )
    for name in FOR_OWN_DATA:
        if options.dataset in DATASETS and getattr(options, name) != getattr(usual, name):
            raise ValueError(
                f"`{name}` has no effect on `dataset` {options.dataset}, only on your own images: leave it out"
            )
    if options.micro_batch is not None and options.micro_batch > options.batch:
        raise ValueError(
            f"`micro_batch` is {options.micro_batch}, but a batch has {options.batch} neighbourhoods: give at most "
            f"{options.batch}, or leave it out"
        )
