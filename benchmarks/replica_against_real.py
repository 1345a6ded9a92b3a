"""Compare the rendered replica with real frames of the 3D Shapes data set: errors and a contact sheet.

    python benchmarks/replica_against_real.py FRAMES.npz --out PICTURE.png

FRAMES.npz holds `images` (n, 64, 64, 3) uint8 and `factors` (n, 6): indices in the data set's order.
"""

from pathlib import Path

import click
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from hierarchical_lvae.data.raycast import SHAPES
from hierarchical_lvae.data.replica import FACTOR_SIZES, load_replica

COLUMNS = 12
GAIN = 4  # brightens the differences in the picture


def describe(factors: np.ndarray) -> str:
    """Name the factors of one frame, on three lines."""
    floor, wall, thing, scale, shape, orientation = factors
    return f"hues {floor}, {wall}, {thing}\n{list(SHAPES)[shape]}, scale {scale}\norientation {orientation}"


@click.command()
@click.argument("frames", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File for the contact sheet."
)
def main(frames: Path, out: Path) -> None:
    with np.load(frames, allow_pickle=False) as file:
        real, factors = file["images"], file["factors"].astype(int)
    index = np.ravel_multi_index(tuple(factors.T), FACTOR_SIZES)
    replica = load_replica(None)[index].permute(0, 2, 3, 1).numpy()
    difference = np.abs(replica.astype(int) - real)
    error = difference.mean(axis=(1, 2, 3))
    worst = int(error.argmax())
    click.echo(f"mean absolute error over {len(error)} frames (pixels from 0 to 255): {error.mean():.2f}")
    click.echo(f"largest error: {error[worst]:.2f}, frame {worst}, factors {factors[worst].tolist()}")

    shown = np.linspace(0, len(real) - 1, COLUMNS).round().astype(int)
    rows = {"real": real, "replica": replica, f"difference ×{GAIN}": np.minimum(GAIN * difference, 255)}
    figure, axes = plt.subplots(
        len(rows), COLUMNS, figsize=(1.3 * COLUMNS, 1.5 * len(rows) + 0.4), layout="constrained"
    )
    for (label, pictures), row in zip(rows.items(), axes, strict=True):
        row[0].set_ylabel(label)
        for number, axis in zip(shown, row, strict=True):
            axis.imshow(pictures[number])
            axis.set(xticks=[], yticks=[])
    for number, axis in zip(shown, axes[0], strict=True):
        axis.set_title(f"{describe(factors[number])}\nerror {error[number]:.1f}", fontsize=8)
    scales, orientations = FACTOR_SIZES[3], FACTOR_SIZES[5]
    figure.suptitle(
        "Real frames of 3D Shapes and the replica, by the indices of floor, wall and object hue (of 10), "
        f"scale (of {scales}) and orientation (of {orientations}); mean absolute error in levels of 255",
        fontsize=10,
    )
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    main()
