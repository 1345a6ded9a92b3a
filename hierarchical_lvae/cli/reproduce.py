"""`hlvae reproduce`: a table of the paper, published values beside ours."""

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hierarchical_lvae.cli.names import Name

if TYPE_CHECKING:
    from hierarchical_lvae.experiments import Result, Table

KNOWN = ("table1", "table2", "table5")


@click.command()
@click.argument("name", type=Name(KNOWN))
@click.option("--preset", type=Name(["paper", "quick"]), default="quick", show_default=True, help="Of the fits.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Fits of each row.")
@click.option("--rows", default="", help="Names of rows, with commas [default: all]")
@click.option("--steps", type=click.IntRange(1), help="Meta-steps of each fit [default: by preset]")
@click.option("--points", type=(int, int), default=(10_000, 5_000), show_default=True, help="For DCI: fitted, tested.")
@click.option("--images", type=click.IntRange(5), default=50_000, show_default=True, help="Of each kind, for FID.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the runs lie [default: runs/NAME-PRESET]")
@click.option("--data-dir", type=click.Path(), help="Where data files lie [default: $HLVAE_DATA or user cache]")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, …")
@click.option("--print-only", is_flag=True, help="Train nothing: print the rows that are there, or the paper's own.")
def reproduce(
    name: str,
    preset: str,
    seeds: int,
    rows: str,
    steps: int | None,
    points: tuple[int, int],
    images: int,
    out: Path | None,
    data_dir: str | None,
    device: str,
    print_only: bool,
) -> None:
    """Train and score the rows of a table of the paper, and print them: published, ours, and the difference.

    What is finished is not run again, and what was interrupted goes on. The table is left in Markdown and CSV beside
    the runs; its header says in what it differs from the paper's protocol.

    \b
    Examples:
      hlvae reproduce table1 --preset quick
      hlvae reproduce table5 --rows sampling,none --seeds 5
    """
    from hierarchical_lvae.cli.fit import resolve_device
    from hierarchical_lvae.experiments import TABLES, run_table
    from hierarchical_lvae.scoring import Settings

    table, out = TABLES[name], out or Path("runs", f"{name}-{preset}")
    results: list[Result] = []
    settings = Settings(train=points[0], test=points[1], images=images)
    given: dict[str, Any] = {"steps": steps, "data_dir": data_dir, "device": resolve_device(device)}
    wanted = tuple(row for row in rows.split(",") if row)
    for result in run_table(table, out, preset, range(seeds), wanted, settings, finished_only=print_only, **given):
        results.append(result)
        click.echo(f"{result.row.name}, seed {result.seed}: {result.remark or 'done'}", err=True)
        if not print_only:
            write(table, results, out)
    for line in lines(table, results):
        click.echo(line)


def cells(table: "Table", results: "Sequence[Result]") -> list[list[str]]:
    """A row a model and a column a number: the published value, ours over seeds, and the difference."""
    found = [["row", "seeds", *table.columns]]
    for row in table.rows:
        runs = [result for result in results if result.row.name == row.name]
        remarks = [result.remark.partition(":")[0] for result in runs if result.remark]
        line = [row.name, str(len(runs))]
        for column, (published, place) in enumerate(zip(row.published, table.columns.values(), strict=True)):
            values = [float(value) for run in runs if (value := run.values[column]) is not None]
            names = {run.scores["fid"]["name"] for run in runs if place[0] == "fid" and "name" in run.scores["fid"]}
            line.append(_cell(published, values, remarks, ", ".join(sorted(names - {"FID"}))))
        found.append(line)
    return found


def _cell(published: float | None, values: list[float], remarks: list[str], other: str) -> str:
    """The published value and ours; their difference too, unless ours is of `other` features."""
    paper = "–" if published is None else f"{published:.3f}"
    if not values:
        return f"{paper} · {remarks[0] if remarks else 'not run'}"
    ours = statistics.fmean(values)
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    if other:
        return f"{paper} · {ours:.3f}{spread} {other}"
    return f"{paper} · {ours:.3f}{spread}" + ("" if published is None else f" ({ours - published:+.3f})")


def lines(table: "Table", results: "Sequence[Result]") -> list[str]:
    """The table in Markdown, headed by what it is and how it differs from the paper's."""
    header, *body = cells(table, results)
    return [
        f"## {table.title}",
        "",
        "Published · ours (difference).",
        *(f"- {note}" for note in protocol(results)),
        "",
        *(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *body)),
    ]


def protocol(results: "Sequence[Result]") -> list[str]:
    """What of the runs is other than in the paper, a line each."""
    about: dict[str, set[Any]] = {"data": set(), "protocol": set(), "features": set()}
    for result in results:
        options = result.options
        about["protocol"].add(f"{options.steps:,} steps of B = {options.batch}, K = {options.num_neighbours}")
        if result.source:
            about["data"].add(result.source)
        if "name" in result.scores.get("fid", {}):
            fid = result.scores["fid"]
            about["features"].add(f"{fid['name']} of {fid['generated']:,} images")
    papers = "the paper: 300,000 steps of B = 25, K = 10; the real images; FID of 50,000"
    return [f"{kind}: {', '.join(sorted(values))}" for kind, values in about.items() if values] + [papers]


def write(table: "Table", results: "Sequence[Result]", out: Path) -> None:
    """Leave the table as table.md and table.csv in the directory of the runs."""
    from hierarchical_lvae.checkpoints import atomic

    with atomic(out / "table.md") as temporary:
        temporary.write_text("\n".join(lines(table, results)) + "\n")
    with atomic(out / "table.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "seed", *table.columns, "remark"])
        for row in table.rows:
            writer.writerow([row.name, "published", *("" if v is None else v for v in row.published), ""])
        for result in results:
            numbers = ("" if value is None else value for value in result.values)
            writer.writerow([result.row.name, result.seed, *numbers, result.remark])
