"""Draw a contact sheet of the stand-in for CarsNORB: in each row, one factor varies.

python benchmarks/carsnorb_stand_in.py --out PICTURE.png
"""

from pathlib import Path

import click
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from hierarchical_lvae.data import default_data_dir
from hierarchical_lvae.data.carsnorb_stand_in import CAR_SIZES, TOY_SIZES, load_stand_in

COLUMNS = 9
CARS = {"elevation": 0, "azimuth": 1, "object: body": 2, "object: colour": 3}
TOYS = {"category": 0, "instance": 1, "elevation": 2, "azimuth": 3, "lighting": 4}
EXAMPLES = {"cars": ((1, 3, 0, 0), (2, 20, 5, 1)), "toys": ((0, 0, 3, 2, 0), (3, 1, 4, 7, 5))}


def states(factor: int, sizes: tuple[int, ...], start: tuple[int, ...]) -> list[int]:
    """The indices of up to `COLUMNS` images that differ in one factor, spread over its values."""
    values = np.linspace(0, sizes[factor], COLUMNS, endpoint=False) if sizes[factor] > COLUMNS else range(sizes[factor])
    return [int(np.ravel_multi_index((*start[:factor], int(v), *start[factor + 1 :]), sizes)) for v in values]


@click.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The picture to write.")
def main(out: Path) -> None:
    dataset = load_stand_in(default_data_dir())
    rows = []
    for world, factors, sizes, offset in (
        ("cars", CARS, CAR_SIZES, 0),
        ("toys", TOYS, TOY_SIZES, dataset.parts[1].start),
    ):
        for name, factor in factors.items():
            left, right = ([offset + state for state in states(factor, sizes, start)] for start in EXAMPLES[world])
            rows.append((f"{world}\n{name}", left, right))
    figure, axes = plt.subplots(len(rows), 2 * COLUMNS, figsize=(0.66 * 2 * COLUMNS + 1, 0.72 * len(rows) + 0.3))
    for (label, left, right), row in zip(rows, axes, strict=True):
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
        for axis in row:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for axis, index in [*zip(row, left, strict=False), *zip(row[COLUMNS:], right, strict=False)]:
            axis.imshow(dataset.images[index].permute(1, 2, 0))
    figure.suptitle(f"{dataset.source}: one factor varies in each row, for two examples", fontsize=9)
    figure.subplots_adjust(left=0.11, right=0.995, top=0.955, bottom=0.005, wspace=0.04, hspace=0.04)
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    main()
