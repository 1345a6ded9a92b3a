"""A table of the paper as text: published values next to ours, in Markdown and CSV."""

import csv
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierarchical_lvae.experiments import Result, Table
from hierarchical_lvae.experiments.paper import Place
from hierarchical_lvae.files import atomic, occupied, write_text
from hierarchical_lvae.presentation import plots
from hierarchical_lvae.presentation.figures import save
from hierarchical_lvae.runs.directory import is_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def cells(table: Table, results: Sequence[Result]) -> list[list[str]]:
    """One row per model, one column per number: the published value, ours over seeds, and the difference."""
    found = [["row", "seeds", *table.columns]]
    for row in table.rows:
        runs = [result for result in results if result.row.name == row.name]
        line = [row.name, str(len(runs))]
        for column, (published, place) in enumerate(zip(row.published, table.columns.values(), strict=True)):
            values = [float(value) for run in runs if (value := run.values[column]) is not None]
            remarks = Counter(run.remark.partition(":")[0] for run in runs if run.remark and run.values[column] is None)
            line.append(_cell(published, values, remarks, _features(runs, place), bool(runs)))
        found.append(line)
    return found


def _features(results: Sequence[Result], place: Place) -> dict[str, str]:
    """The name of each Fréchet distance by its name and the weights of its features; empty for another column.

    Distances are comparable only if both agree.
    """
    distances = [result.scores.get("fid", {}) for result in results if place[0] == "fid"]
    return {
        f"{distance['name']} {distance.get('settings', {}).get('weights', '')}": distance["name"]
        for distance in distances
        if "name" in distance
    }


def _cell(
    published: float | None, values: list[float], remarks: Counter[str], features: dict[str, str], run: bool
) -> str:
    """The published value and ours, with their difference unless ours is a distance other than FID.

    Distances in different features are not averaged.
    """
    paper = "–" if published is None else f"{published:.3f}"
    if len(features) > 1:
        return f"{paper} · not comparable: {', '.join(sorted(features))}"
    if not values:
        return f"{paper} · {', '.join(remarks) or ('not scored' if run else 'not run')}"
    ours = statistics.fmean(values)
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    spread += "".join(f", {number} {remark}" for remark, number in remarks.items())
    if other := ", ".join({*features.values()} - {"FID"}):
        return f"{paper} · {ours:.3f}{spread} {other}"
    return f"{paper} · {ours:.3f}{spread}" + ("" if published is None else f" ({ours - published:+.3f})")


def lines(table: Table, results: Sequence[Result]) -> list[str]:
    """The table in Markdown, below its title, its protocol and the paper's; failures are listed last."""
    header, *body = cells(table, results)
    wrong = [f"- {r.row.name}, seed {r.seed}: {r.remark}" for r in in_order(table, results) if r.remark]
    return [
        f"## {table.title}",
        "",
        "Published · ours (difference).",
        *(f"- {note}" for note in protocol(results)),
        "",
        *(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *body)),
        *(["", *wrong] if wrong else []),
    ]


def in_order(table: Table, results: Sequence[Result]) -> list[Result]:
    """Sort results by row and seed; they arrive as they finish."""
    names = [row.name for row in table.rows]
    return sorted(results, key=lambda result: (names.index(result.row.name), result.seed))


def protocol(results: Sequence[Result]) -> list[str]:
    """The data, the protocol and the scores of the runs, and the paper's, one line each."""
    about: dict[str, set[Any]] = {"data": set(), "protocol": set(), "points": set(), "features": set()}
    for result in results:
        options = result.options
        usual = options.beta / result.row.options.get("beta", 1.0)
        parts = [
            f"{options.steps:,} steps, B = {options.batch}, K = {options.num_neighbours} ({options.neighbourhood})",
            f"shrunk to {options.image_size} pixels" if options.image_size else "",
            f"Adam {options.lr:g}" + (f" clipped at {options.clip:g}" if options.clip else ""),
            f"{options.warm_up} steps of warm-up" if options.warm_up else "",
            f"β multiplied by {usual:g}" if usual != 1 else "",
        ]
        about["protocol"].add(", ".join(part for part in parts if part))
        if result.source:
            about["data"].add(result.source)
        if "name" in result.scores.get("fid", {}):
            fid = result.scores["fid"]
            about["features"].add(f"{fid['name']} of {fid['generated']:,} images")
        if "settings" in result.scores.get("dci", {}):
            points = result.scores["dci"]["settings"]
            bound = "at most " if "parts" in result.scores["dci"] else ""  # a part may have fewer images
            about["points"].add(
                f"DCI of {points['codes']} codes, fitted on {bound}{points['train']:,} "
                f"and tested on {bound}{points['test']:,}"
            )
    papers = (
        "the paper: 300,000 steps, B = 25, K = 10 (noise; nearest codes on CarsNORB), Adam 0.0001; the real images; "
        "FID of 50,000 images"
    )
    return [f"{kind}: {', '.join(sorted(values))}" for kind, values in about.items() if values] + [papers]


def refuse_others(table: Table, out: Path, names: Sequence[str]) -> None:
    """Refuse to replace files `names` in the directory of the runs, unless it holds one of these runs or this table.

    Raises:
        FileExistsError: such a file exists and is not ours.
        OSError: no file can be written there.
    """
    there = [name for name in names if occupied(out / name)]
    rows = {row.name for row in table.rows}
    begun = any(path.name.rpartition("-")[0] in rows and is_run(path) for path in out.glob("*"))
    if there and not begun and not _is_table(table, out / names[0]):
        raise FileExistsError(f"{out / there[0]} is not a result of hlvae reproduce: choose another `out`")


def _is_table(table: Table, path: Path) -> bool:
    """Whether a file begins as `write` begins this table, which it does even if all runs failed."""
    start = f"## {table.title}\n".encode()
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(start)) == start


def draw(table: Table, results: Sequence[Result]) -> "Figure":
    """Draw a panel per column, with every seed of every row, and the paper's values where they are comparable."""
    panels: dict[str, list[tuple[str, list[float], float | None]]] = {}
    for column, (title, place) in enumerate(table.columns.items()):
        features = _features(results, place)
        if len(features) > 1:
            title = f"{title} (not comparable: different features)"
        panels[title] = []
        for row in table.rows:
            runs = [result for result in results if result.row.name == row.name]
            values = [float(value) for run in runs if (value := run.values[column]) is not None]
            published = row.published[column] if {*features.values()} <= {"FID"} else None
            panels[title].append((row.label, values, published))
    return plots.values_by_row(panels, "\n".join([table.title, *protocol(results)[:1]]))


def write(table: Table, results: Sequence[Result], out: Path, stem: str = "table") -> None:
    """Save the table as STEM.md, STEM.csv and figures/STEM.png in the directory of the runs.

    If all runs failed, a table that exists is kept.
    """
    if all(result.failed for result in results) and (out / f"{stem}.md").exists():
        return
    write_text(out / f"{stem}.md", "\n".join(lines(table, results)) + "\n")
    with atomic(out / f"{stem}.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "seed", *table.columns, "remark"])
        for row in table.rows:
            writer.writerow([row.name, "published", *row.published, ""])
        for result in in_order(table, results):
            writer.writerow([result.row.name, result.seed, *result.values, result.remark])
    save(draw(table, results), out, stem)
