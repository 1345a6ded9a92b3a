"""The options of a fit, and the presets."""

import math
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, get_args

from hierarchical_lvae.data import DATASETS, FRAMES
from hierarchical_lvae.data.paths import is_path
from hierarchical_lvae.penalties import PENALTIES, with_weight
from hierarchical_lvae.runs.names import check_effects
from hierarchical_lvae.types import check_name, suggestion

QUICK = {
    "batch": 8, "num_neighbours": 5, "steps": 6_000, "lr": 6e-4, "warm_up": 0, "clip": 100.0, "image_size": 32
}  # fmt: skip
"""The short protocol, `quick`, for data on which it was not tuned."""

_ON_3DSHAPES = {
    "num_neighbours": 1, "lr": 1e-3, "warm_up": 300, "neighbourhood": "noise", "alpha": 0.2, "beta": 0.25
}  # fmt: skip

TUNED: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {
        "3dshapes": {**_ON_3DSHAPES, "batch": 32, "steps": 5_000},
        "digits": {"clip": 500.0},
        "carsnorb": {"batch": 32, "num_neighbours": 2, "steps": 5_000, "warm_up": 300, "beta": 0.25},
    },
    "night": {"3dshapes": {**_ON_3DSHAPES, "batch": 25, "steps": 40_000}},
}
"""Overrides by preset and data set (see docs/results.md). With so large a step, fits of other images can diverge.
The values for CarsNORB are not tuned: they keep β in balance, and a fit within 15 minutes of one core.

β scales with the number of pixels: 32×32 images have a quarter of the pixels of the paper's 64×64, so β = 0.25 here
gives the same balance as the paper's β = 1. It follows `image_size`; with a penalty, whose weight is relative to the
KL, β is 1.
"""

PAPERS_SIZE = 64
"""Side of the paper's images, in pixels."""

AUTO = "auto"
"""As `alpha`: estimate α from the evidence."""

PRECISIONS = ("highest", "high", "medium")
"""Precision of float32 matrix products, by PyTorch's names; on a GPU both "high" and "medium" mean TF32."""

LARGEST = 2**31 - 1
COUNTS, SEEDS = (1, LARGEST), (0, 2**32 - 1)
"""Smallest and largest count, and smallest and largest seed: the ranges that NumPy and scikit-learn accept."""

LARGEST_FLOAT = 3.4e38
"""About the largest float32."""

CHECKPOINT_EVERY = 60.0
"""Seconds between checkpoints."""

ALPHA_UNITS = ("pixel", "sum")
"""Whether the inner loss is averaged over pixels, or summed; it is always averaged over neighbours."""


@dataclass(frozen=True)
class FitOptions:
    """All options of a fit, resolved, as saved in `options.json`. The defaults are those of the paper's Table 4.

    Values are converted where the conversion is exact (10.0 to 10, NumPy numbers to Python numbers, paths to strings).
    Paths are made absolute, so that a run can be resumed from another directory.

    With `alpha="auto"`, α starts at 1 (per pixel) and is then re-estimated from the evidence of the neighbourhoods.

    >>> FitOptions("digits", steps=1e3).steps
    1000

    Raises:
        TypeError: a value has the wrong type.
        ValueError: a value is out of range, or two contradict each other.
    """

    dataset: str
    data_dir: str | None = None
    alpha: float | str = 1.0
    alpha_unit: str = "pixel"
    local: str = "one-step"
    local_layers: str = "all"
    first_order: bool = False
    clip: float | None = None
    neighbourhood: str = "noise"
    index: str | None = None
    refresh: int = 0
    num_neighbours: int = 10
    batch: int = 25
    micro_batch: int | None = None
    steps: int = 300_000
    lr: float = 1e-4
    warm_up: int = 0
    beta: float = 1.0
    penalty: str | None = None
    likelihood: str = "bernoulli"
    latent_dim: int = 10
    activation: str = "relu"
    image_size: int | None = None
    frame: str = "crop"
    skip_bad: bool = False
    seed: int = 0
    device: str = "cpu"
    precision: str = "highest"
    compiled: bool = False
    deterministic: bool = False

    RANGES: ClassVar = {"refresh": (0, LARGEST), "warm_up": (0, LARGEST), "latent_dim": (1, 4096),
                        "image_size": (8, 4096), "seed": SEEDS}  # fmt: skip

    def __post_init__(self) -> None:
        if isinstance(self.dataset, os.PathLike):  # a Path means the user's own data, even if a data set has that name
            object.__setattr__(self, "dataset", str(Path(self.dataset).absolute()))
        for field in fields(self):
            try:
                value = exactly(field.type, getattr(self, field.name))
            except TypeError as error:
                raise TypeError(f"{field.name} {error}") from None
            object.__setattr__(self, field.name, value)  # the dataclass is frozen
        object.__setattr__(self, "dataset", absolute(self.dataset))
        object.__setattr__(self, "data_dir", str(Path(self.data_dir).absolute()) if self.data_dir else None)
        kind, _, file = self.neighbourhood.partition(":")
        if kind == "graph" and file:
            object.__setattr__(self, "neighbourhood", f"graph:{Path(file).absolute()}")
        self._check()

    def _check(self) -> None:
        check_name("unit of alpha", self.alpha_unit, ALPHA_UNITS)
        check_ranges(self)
        if self.penalty is not None:
            if self.penalty.partition(":")[0] in PENALTIES:  # an own one may be added later
                with_weight(self.penalty)
            if self.micro_batch is not None or self.batch < 2:
                raise ValueError(
                    f"the penalty {self.penalty} needs the codes of a whole batch: "
                    "give `batch` 2 or more, leave out `micro_batch`, and train in one process"
                )
        if self.compiled and (self.micro_batch is not None or self.penalty is not None):
            raise ValueError(
                "`compiled` needs the whole batch in one process and no penalty: leave it out, or leave out "
                "`micro_batch` and `penalty`"
            )
        check_name("frame", self.frame, FRAMES)
        check_name("precision", self.precision, PRECISIONS)
        if isinstance(self.alpha, str) and self.alpha != AUTO:
            raise ValueError(f"alpha is {self.alpha!r}: it must be a number or {AUTO!r}")
        if self.alpha == AUTO and self.local == "shared":
            raise ValueError("alpha 'auto' needs local weights, but with `local` shared there are none: leave one out")
        if self.local in ("exact", "laplace-exact") and self.local_layers in ("all", "decoder", "encoder"):
            raise ValueError(
                f"{self.local} needs a likelihood that is linear in the local weights: give `local_layers` head"
            )
        if self.alpha == 0 and self.local.startswith(("laplace", "exact")):
            raise ValueError(
                f"{self.local} needs local weights, but with alpha 0 there are none: "
                "leave out `local` for the plain VAE, or give an `alpha` above 0"
            )
        for name in ("alpha", "beta", "lr") if self.alpha != AUTO else ("beta", "lr"):
            value = getattr(self, name)
            if not 0 <= value <= LARGEST_FLOAT:
                raise ValueError(f"{name} is {value}: it must be finite and not negative (at most {LARGEST_FLOAT:g})")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise ValueError(f"clip is {self.clip}: it must be positive and finite (leave it out for no clipping)")

    @classmethod
    def of(cls, preset: str, **options: Any) -> "FitOptions":
        """Fill in the options that are None or not given from a preset; with α = 0 the local inference is `shared`.

        A penalty without a weight gets its default weight.

        If the preset sets no neighbourhood for the data set, the default depends on the data: the nearest codes, or
        observation noise.

        >>> options = FitOptions.of("quick", dataset="digits", batch=2)
        >>> options.batch, options.num_neighbours, options.local
        (2, 5, 'one-step')

        Raises:
            TypeError: `dataset` is missing, or there is no such option.
            ValueError: there is no such preset, or an option is invalid or without effect.
        """
        check_name("preset", preset, PRESETS)
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in options if name not in known]:
            raise TypeError(f"no option is called {unknown[0]!r}: {suggestion(unknown[0], known)}")
        given = {name: value for name, value in options.items() if value is not None}
        if "dataset" not in given:
            raise TypeError("dataset is missing")
        protocol = _protocol(preset, str(given["dataset"]))
        if "beta" in protocol:
            size = min(given.get("image_size", protocol["image_size"]), PAPERS_SIZE)
            protocol["beta"] = 1.0 if "penalty" in given else (size / PAPERS_SIZE) ** 2
        given = protocol | given
        if given.get("alpha", cls.alpha) == 0 and not given.get("local", cls.local).startswith(("laplace", "exact")):
            given["local"] = "shared"
        if "neighbourhood" not in given:
            from hierarchical_lvae.data import default_neighbourhood

            given["neighbourhood"] = default_neighbourhood(given["dataset"])
        if given["neighbourhood"] == "noise-mean" and options.get("num_neighbours") is None:
            given["num_neighbours"] = 1
        if "penalty" in given:
            given["penalty"] = with_weight(given["penalty"])
        result = cls(**given)
        check_effects(result)  # not of a run that is read or changed
        return result

    @property
    def preset(self) -> str:
        """The preset nearest to these options: "quick", or "quick, changed" if some values differ.

        Only the schedule (the keys of `QUICK`) is compared, not the model: α, β and the neighbourhood may differ.

        >>> FitOptions.of("quick", dataset="digits").preset, FitOptions("digits").preset
        ('quick', 'paper')
        >>> FitOptions.of("quick", dataset="digits", steps=100).preset
        'quick, changed'
        """
        own = asdict(self)
        schedules = {name: _schedule(name, self.dataset, self.neighbourhood) for name in PRESETS}
        changed = {name: sum(own[k] != v for k, v in schedule.items()) for name, schedule in schedules.items()}
        nearest_preset = min(changed, key=lambda name: changed[name])
        return nearest_preset + (", changed" if changed[nearest_preset] else "")

    def under(self, preset: str) -> "FitOptions":
        """The same model on the schedule of `preset`; a neighbourhood that a preset sets is replaced as well."""
        mine = {_protocol(name, self.dataset).get("neighbourhood") for name in PRESETS}
        other = FitOptions.of(preset, dataset=self.dataset).neighbourhood
        neighbourhood = other if self.neighbourhood in mine else self.neighbourhood
        return replace(self, neighbourhood=neighbourhood, **_schedule(preset, self.dataset, neighbourhood))


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {name: getattr(FitOptions, name) for name in QUICK},
    "quick": QUICK,
    "night": QUICK | {"steps": 60_000, "image_size": 64},
}
"""Presets by name."""


def exactly(kind: Any, value: Any) -> Any:
    """Convert a value to `kind` (a type or a union of types) if the conversion is exact.

    >>> exactly(int, 10.0), exactly(float | None, 1), exactly(bool, 1)
    (10, 1.0, True)
    >>> exactly(int, 0.5)
    Traceback (most recent call last):
    TypeError: is 0.5: it must be int

    Raises:
        TypeError: the conversion would not be exact.
    """
    kinds = get_args(kind) or (kind,)
    value = value.item() if hasattr(value, "dtype") and hasattr(value, "item") and value.ndim == 0 else value
    value = os.fspath(value) if isinstance(value, os.PathLike) and str in kinds else value
    if type(value) in kinds:
        return value
    for one in {int, float, bool} & {*kinds} if isinstance(value, int | float) else ():
        if isinstance(value, bool) is (one is bool) or (one is bool and value in (0, 1)):
            with suppress(OverflowError, ValueError):
                if one(value) == value:
                    return one(value)
    names = ("None" if one is type(None) else one.__name__ for one in kinds)
    raise TypeError(f"is {value!r}: it must be {' or '.join(names)}")


def check_ranges(settings: Any) -> None:
    """Check the integers of a dataclass of settings; `COUNTS` is the range of those that are not in its `RANGES`.

    Raises:
        ValueError: a number is out of its range.
    """
    for field in fields(settings):
        value, (least, most) = getattr(settings, field.name), settings.RANGES.get(field.name, COUNTS)
        if int in (field.type, *get_args(field.type)) and value is not None and not least <= value <= most:
            raise ValueError(f"{field.name.replace('_', ' ')} is {value}: it must be from {least} to {most}")


def absolute(dataset: str) -> str:
    """Make the path of the user's own data absolute; leave the name of a data set as it is.

    >>> absolute("digits")
    'digits'
    """
    return str(Path(dataset).absolute()) if dataset not in DATASETS and is_path(dataset) else dataset


def _protocol(preset: str, dataset: str) -> dict[str, Any]:
    return PRESETS[preset] | TUNED.get(preset, {}).get(dataset, {})


def _schedule(preset: str, dataset: str, neighbourhood: str) -> dict[str, Any]:
    protocol = _protocol(preset, dataset) | ({"num_neighbours": 1} if neighbourhood == "noise-mean" else {})
    return {name: protocol[name] for name in QUICK}
