"""The paper's tables as records, and the runs that fill them: the published value beside ours.

A row is a fit, by options that differ from those of its table, and its scores. Runs lie in DIRECTORY/ROW-SEED; one that
is finished is not trained again, one that was interrupted goes on, and scores stand in each run's `metrics.json`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hierarchical_lvae.checkpoints import read_json
from hierarchical_lvae.scoring import Settings, score
from hierarchical_lvae.training import FitOptions, fit, load_run, read_options, resume
from hierarchical_lvae.types import Diverged, nearest

Place = tuple[str, ...]
"""Where a number stands in `metrics.json`."""


@dataclass(frozen=True)
class Row:
    """One model of a table."""

    name: str
    options: Mapping[str, Any]
    """Those that differ from the table's."""
    published: tuple[float | None, ...]
    """A value a column; None where the paper has none."""


@dataclass(frozen=True)
class Table:
    """One table of the paper."""

    title: str
    options: Mapping[str, Any]
    """What all fits have in common, besides the preset."""
    columns: Mapping[str, Place]
    rows: tuple[Row, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The scores that its columns are taken from."""
        return tuple(dict.fromkeys(place[0] for place in self.columns.values()))


@dataclass(frozen=True)
class Result:
    """One run of a row."""

    row: Row
    options: FitOptions
    values: tuple[float | None, ...]
    """A value a column; None where there is none."""
    scores: Mapping[str, Any]
    source: str = ""
    """Of the data."""
    remark: str = ""
    """Why there are no values, if the run failed."""

    @property
    def seed(self) -> int:
        """Of the fit."""
        return self.options.seed


def run_table(
    table: Table,
    directory: Path,
    preset: str,
    seeds: Sequence[int] = (0,),
    rows: Sequence[str] = (),
    settings: Settings | None = None,
    progress: bool = True,
    finished_only: bool = False,
    **options: Any,
) -> Iterator[Result]:
    """Train and score the rows of a table, one by one; a fit that diverges is a result that says so.

    Args:
        table: an entry of `TABLES`.
        directory: where the runs lie, or shall lie.
        preset: of the fits, "paper" or "quick".
        seeds: of the fits; each row is run for each.
        rows: names of the rows; all if empty.
        settings: of the scores.
        progress: show progress bars.
        finished_only: train nothing, and leave out what is not finished.
        options: for all fits, such as the device, or fewer steps.

    Raises:
        ValueError: the table has no such row.
    """
    known = [row.name for row in table.rows]
    if unknown := [name for name in rows if name not in known]:
        raise ValueError(f"no row is called {unknown[0]!r}: {nearest(unknown[0], known)}")
    for row in table.rows:
        for seed in seeds if not rows or row.name in rows else ():
            given = FitOptions.of(preset, **{**table.options, **row.options, **options, "seed": seed})
            path = directory / f"{row.name}-{seed}"
            if not finished_only or _status(path) == "finished":
                yield run_row(table, row, given, path, settings, progress)


def run_row(
    table: Table, row: Row, options: FitOptions, path: Path, settings: Settings | None = None, progress: bool = True
) -> Result:
    """Train one row, or go on with it, and score it."""
    try:
        if _status(path) is None:
            fit(options, path, progress)
        else:
            _refuse_others(options, path)
            resume(path, max(options.steps, read_options(path).steps), options.data_dir, progress)
    except Diverged as error:
        return Result(row, options, (None,) * len(table.columns), {}, remark=f"diverged: {error}")
    run = load_run(path, options.device, options.data_dir)
    scores = dict(score(run, path, table.metrics, settings, progress))
    values = tuple(_found(scores, place) for place in table.columns.values())
    return Result(row, run.options, values, scores, run.dataset.source)


def _refuse_others(options: FitOptions, path: Path) -> None:
    """Only the number of steps may grow, and data and device may be elsewhere."""
    begun = read_options(path)
    elsewhere = replace(begun, steps=options.steps, data_dir=options.data_dir, device=options.device)
    if elsewhere != options:
        raise ValueError(f"{path} was begun with other options: choose another directory, or move it away")


def _status(path: Path) -> str | None:
    file = path / "state.json"
    return str(read_json(file).get("status", "unknown")) if file.is_file() else None


def _found(scores: Any, place: Place) -> float | None:
    for key in place:
        scores = scores.get(key) if isinstance(scores, Mapping) else None
    return scores


def _dci(*inner: str) -> dict[str, Place]:
    names = ("disentanglement", "completeness", "informativeness_test")
    return {name.removesuffix("_test"): ("dci", *inner, name) for name in names}


_DCI_AND_FID: dict[str, Place] = {
    **{f"{name}, with colour": place for name, place in _dci().items()},
    **{f"{name}, without colour": place for name, place in _dci("without_colour").items()},
    "Fréchet distance": ("fid", "distance"),
}
_PLAIN = (0.246, 0.204, 0.703, 0.150, 0.096, 0.547, 134.786)
_LOCAL = (0.424, 0.406, 0.594, 0.977, 0.800, 0.999, 43.194)

TABLES = {
    "table1": Table(
        "Table 1: 3D Shapes, DCI and FID by α, and of β-VAEs",
        {"dataset": "3dshapes", "neighbourhood": "noise"},
        _DCI_AND_FID,
        (
            Row("alpha-0", {"alpha": 0.0}, _PLAIN),
            Row("alpha-0.001", {"alpha": 1e-3}, (0.491, 0.407, 0.814, 0.390, 0.305, 0.686, 107.636)),
            Row("alpha-0.01", {"alpha": 1e-2}, (0.449, 0.385, 0.797, 0.173, 0.132, 0.635, 123.288)),
            Row("alpha-0.1", {"alpha": 1e-1}, (0.457, 0.432, 0.626, 0.945, 0.796, 0.996, 49.364)),
            Row("alpha-1", {"alpha": 1.0}, _LOCAL),
            Row("alpha-10", {"alpha": 10.0}, (0.393, 0.370, 0.587, 0.871, 0.733, 0.998, 59.555)),
            Row("alpha-100", {"alpha": 100.0}, (None,) * 7),  # "diverged"
            Row("beta-2", {"alpha": 0.0, "beta": 2.0}, (0.367, 0.292, 0.776, 0.222, 0.215, 0.630, 96.279)),
            Row("beta-4", {"alpha": 0.0, "beta": 4.0}, (0.588, 0.499, 0.906, 0.384, 0.337, 0.817, 96.612)),
            Row("beta-8", {"alpha": 0.0, "beta": 8.0}, (0.636, 0.584, 0.967, 0.601, 0.547, 0.936, 86.856)),
            Row("beta-16", {"alpha": 0.0, "beta": 16.0}, (0.649, 0.580, 0.941, 0.690, 0.473, 0.883, 86.237)),
        ),
    ),
    "table2": Table(
        "Table 2: CarsNORB, disentanglement of each sub-set by α",
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
            Row("input-knn", {"neighbourhood": "input-knn"}, (0.397, 0.342, 0.582, 0.676, 0.520, 0.813, 49.187)),
            Row("none", {"neighbourhood": "noise", "alpha": 0.0}, _PLAIN),
        ),
    ),
}
"""The tables of the paper, by name: those of 3D Shapes as it was published, whatever data our fits have."""
