"""The paper's tables and figures as records: what is trained and scored, and the published values.

A row is a fit with options that differ from those of its table. A figure shows rows of a table, from the same runs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hierarchical_lvae.penalties import PENALTIES

Place = tuple[str, ...]
"""The keys that lead to a number in `metrics.json`."""


@dataclass(frozen=True)
class Row:
    """One model of a table."""

    name: str
    options: Mapping[str, Any]
    """The options that differ from the table's."""
    published: tuple[float | None, ...]
    """One value per column; None where the paper has none."""

    @property
    def label(self) -> str:
        """The name, with symbols.

        >>> Row("alpha-0.1", {}, ()).label, Row("factor-alpha-0", {}, ()).label
        ('α = 0.1', 'factor, α = 0')
        """
        return re.sub(r"(^|-)(alpha|beta)-", lambda found: (found[1] and ", ") + _SYMBOLS[found[2]], self.name)


_SYMBOLS = {"alpha": "α = ", "beta": "β = "}


@dataclass(frozen=True)
class Table:
    """One table of the paper."""

    title: str
    options: Mapping[str, Any]
    """The options that all fits share, besides the preset."""
    columns: Mapping[str, Place]
    rows: tuple[Row, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The scores that contain the numbers of its columns."""
        return tuple(dict.fromkeys(place[0] for place in self.columns.values()))


@dataclass(frozen=True)
class Figure:
    """The runs from which one figure of the paper is drawn."""

    table: str
    """The table that these rows belong to."""
    rows: tuple[str, ...]


def _dci(*inner: str) -> dict[str, Place]:
    names = ("disentanglement", "completeness", "informativeness_test")
    return {name.removesuffix("_test"): ("dci", *inner, name) for name in names}


_DCI_AND_FID: dict[str, Place] = {
    **{f"{name}, with colour": place for name, place in _dci().items()},
    **{f"{name}, without colour": place for name, place in _dci("without_colour").items()},
    "Fréchet distance": ("fid", "distance"),
    "informativeness, of colour": ("dci", "of_colour", "informativeness_test"),
    "colour with the weights (swap)": ("swap", "of_colour", "weights"),
    "geometry with the code, of its ceiling (swap)": ("swap", "without_colour", "of_ceiling"),
}
_NOT_PUBLISHED = (None,) * len(_DCI_AND_FID)


def _published(*values: float) -> tuple[float | None, ...]:
    """Append the informativeness of colour implied by columns 3 and 6 (3 of 6 factors are colours); no swap scores."""
    return *values, round((6 * values[2] - 3 * values[5]) / 3, 3), None, None


_PLAIN = _published(0.246, 0.204, 0.703, 0.150, 0.096, 0.547, 134.786)
_LOCAL = _published(0.424, 0.406, 0.594, 0.977, 0.800, 0.999, 43.194)

TABLES = {
    "table1": Table(
        "Table 1: 3D Shapes, DCI and FID by α, and for β-VAEs",
        {"dataset": "3dshapes"},
        _DCI_AND_FID,
        (
            Row("alpha-0", {"alpha": 0.0}, _PLAIN),
            Row("alpha-0.001", {"alpha": 1e-3}, _published(0.491, 0.407, 0.814, 0.390, 0.305, 0.686, 107.636)),
            Row("alpha-0.01", {"alpha": 1e-2}, _published(0.449, 0.385, 0.797, 0.173, 0.132, 0.635, 123.288)),
            Row("alpha-0.1", {"alpha": 1e-1}, _published(0.457, 0.432, 0.626, 0.945, 0.796, 0.996, 49.364)),
            Row("alpha-1", {"alpha": 1.0}, _LOCAL),
            Row("alpha-10", {"alpha": 10.0}, _published(0.393, 0.370, 0.587, 0.871, 0.733, 0.998, 59.555)),
            Row("alpha-100", {"alpha": 100.0}, _NOT_PUBLISHED),  # "diverged"
            Row("beta-2", {"alpha": 0.0, "beta": 2.0}, _published(0.367, 0.292, 0.776, 0.222, 0.215, 0.630, 96.279)),
            Row("beta-4", {"alpha": 0.0, "beta": 4.0}, _published(0.588, 0.499, 0.906, 0.384, 0.337, 0.817, 96.612)),
            Row("beta-8", {"alpha": 0.0, "beta": 8.0}, _published(0.636, 0.584, 0.967, 0.601, 0.547, 0.936, 86.856)),
            Row("beta-16", {"alpha": 0.0, "beta": 16.0}, _published(0.649, 0.580, 0.941, 0.690, 0.473, 0.883, 86.237)),
        ),
    ),
    "table2": Table(
        "Table 2: CarsNORB, disentanglement of each subset by α",
        {"dataset": "carsnorb", "neighbourhood": "latent-knn"},
        {f"{part} disentanglement": ("dci", "parts", part, "disentanglement") for part in ("smallnorb", "cars3d")},
        (
            Row("alpha-0", {"alpha": 0.0}, (0.265, 0.079)),
            Row("alpha-0.01", {"alpha": 1e-2}, (0.282, 0.165)),
            Row("alpha-0.1", {"alpha": 1e-1}, (0.264, 0.111)),
            Row("alpha-1", {"alpha": 1.0}, (0.255, 0.080)),
        ),
    ),
    "table5": Table(
        "Table 5: 3D Shapes, DCI and FID by neighbourhood",
        {"dataset": "3dshapes", "alpha": 1.0},
        _DCI_AND_FID,
        (
            Row("sampling", {"neighbourhood": "noise"}, _LOCAL),
            Row(
                "input-knn",
                {"neighbourhood": "input-knn"},
                _published(0.397, 0.342, 0.582, 0.676, 0.520, 0.813, 49.187),
            ),
            Row("none", {"alpha": 0.0}, _PLAIN),
        ),
    ),
    "effect": Table(
        "The paper's effect: 3D Shapes, DCI, FID and swap of the Local VAE (the preset's α; published: α = 1) "
        "and of the plain VAE",
        {"dataset": "3dshapes"},
        _DCI_AND_FID,
        (Row("local", {}, _LOCAL), Row("plain", {"alpha": 0.0}, _PLAIN)),
    ),
    "baselines": Table(
        "Baselines, not in the paper: 3D Shapes, DCI and FID of the other methods of Locatello et al. (2019), "
        "each as a plain VAE (α = 0) and on top of the Local VAE (α = 1)",
        {"dataset": "3dshapes"},
        _DCI_AND_FID,
        tuple(
            Row(f"{penalty}-alpha-{alpha}", {"alpha": float(alpha), "penalty": penalty}, _NOT_PUBLISHED)
            for penalty in PENALTIES
            for alpha in (0, 1)
        ),
    ),
}
"""The tables of the paper, one of its central claim and one of other methods; published values were measured on the
real 3D Shapes."""

FIGURES = {
    # samples from the conditional prior, by α
    "fig2": Figure("table1", tuple(row.name for row in TABLES["table1"].rows if row.name.startswith("alpha"))),
    "fig3": Figure("table1", ("alpha-1",)),  # conditional samples
    "fig4": Figure("table1", ("alpha-1",)),  # the latent space
}
"""The figures of the paper that show results, by name."""


def table_of(name: str) -> Table:
    """The table called `name` or, for a figure, the rows that it shows, without columns."""
    if name in TABLES:
        return TABLES[name]
    figure = FIGURES[name]
    rows = tuple(row for row in TABLES[figure.table].rows if row.name in figure.rows)
    return replace(TABLES[figure.table], columns={}, rows=rows)
