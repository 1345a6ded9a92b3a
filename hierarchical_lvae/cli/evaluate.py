"""`hlvae evaluate`: the scores of a run, in a table and in metrics.json."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hierarchical_lvae.cli.figures import describe, save
from hierarchical_lvae.cli.names import Name, Names
from hierarchical_lvae.evaluation import METRICS

if TYPE_CHECKING:
    from hierarchical_lvae.training import Run

KNOWN = (*METRICS, "iwae")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--metrics", type=Names(KNOWN), default=",".join(KNOWN), show_default=True, help="What to compute.")
@click.option(
    "--codes", type=Name(["local", "meta"]), default="local", show_default=True, help="Which encoder's codes."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of points, neighbours and classifiers.")
@click.option("--points", type=(int, int), default=(10_000, 5_000), show_default=True, help="To fit on, to test on.")
@click.option("--draws", type=click.IntRange(1), default=5_000, show_default=True, help="Of the codes, for IWAE.")
@click.option("--against", type=click.Path(path_type=Path), multiple=True, help="Another run, set beside; repeatable.")
@click.option("--data-dir", type=click.Path(), help="Where the data lie [default: as when it was trained]")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, …")
def evaluate(
    run: Path,
    metrics: tuple[str, ...],
    codes: str,
    seed: int,
    points: tuple[int, int],
    draws: int,
    against: tuple[Path, ...],
    data_dir: str | None,
    device: str,
) -> None:
    """Score RUN, print a table, and leave metrics.json in it; what stands there already is not computed again.

    Disentanglement by DCI, MIG, SAP, the FactorVAE and BetaVAE scores and modularity, with the field's settings;
    likelihood by ELBO and IWAE, of points that were adapted on and of points that were not.

    \b
    Examples:
      hlvae evaluate runs/first
      hlvae evaluate runs/local --metrics dci,mig --codes meta --against runs/plain
    """
    from hierarchical_lvae.scoring import Settings, score
    from hierarchical_lvae.training import load_run

    settings = Settings(codes=codes, seed=seed, train=points[0], test=points[1], draws=draws)
    runs = {path: load_run(path, device, data_dir) for path in (run, *against)}
    columns: dict[Path, dict[str, str]] = {}
    for path, loaded in runs.items():
        scores = dict(score(loaded, path, metrics, settings))
        columns[path] = {line: text for name, values in scores.items() for line, text in lines(name, values)}
        click.echo(f"{path}: {describe(loaded)}")
        if "importance" in scores.get("dci", {}):
            click.echo(draw_importance(loaded, scores["dci"], path))
    click.echo()
    for line in table(columns):
        click.echo(line)
    click.echo(f"\ncodes: {codes} · points: {points[0]:,} to fit on, {points[1]:,} to test on · seed {seed}")


def lines(name: str, values: dict[str, Any]) -> list[tuple[str, str]]:
    """What a score says, as labels and texts."""
    if "not_available" in values:
        return [(name, f"– ({values['not_available']})")]
    if name != "iwae":
        inner = values.get("without_colour", {})
        flat = {**values, **{f"without colour {key}": value for key, value in inner.items()}}
        shown = {key: value for key, value in flat.items() if isinstance(value, int | float)}
        return [
            (f"{name} {key}".replace("_", " "), str(value) if isinstance(value, int) else f"{value:.3f}")
            for key, value in shown.items()
        ]
    found = []
    for part in ("adapted_on", "held_out", "reference"):
        for k, nats in values[part]["nats"].items():
            found.append((f"iwae {part.replace('_', ' ')} {k}", f"{nats:.1f} nats"))
        found.append((f"iwae {part.replace('_', ' ')}", f"{values[part]['bits_per_dimension']:.4f} bits/dim"))
    found += [(f"squared error {kind}", f"{error:.5f}") for kind, error in values["squared_error"].items()]
    return [*found, ("active units", str(values["active_units"]))]


def table(columns: dict[Path, dict[str, str]]) -> list[str]:
    """One line a score, one column a run."""
    labels = list(dict.fromkeys(label for column in columns.values() for label in column))
    cells = [["", *(path.name for path in columns)]]
    cells += [[label, *(column.get(label, "–") for column in columns.values())] for label in labels]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join([first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(rest, widths[1:], strict=True))])
        for first, *rest in cells
    ]


def draw_importance(run: "Run", values: dict[str, Any], out: Path) -> Path:
    """Draw DCI's importances as a heat map."""
    import numpy as np

    from hierarchical_lvae import figures

    figure = figures.importance(np.array(values["importance"]), values["factors"], describe(run))
    return save(figure, out, f"importance-{values['settings']['codes']}")
