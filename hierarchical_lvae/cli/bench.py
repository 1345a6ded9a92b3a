"""`hlvae bench`: the cost of a meta-step on this machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from hierarchical_lvae.cli.names import Count, Location, device_option, option_of
from hierarchical_lvae.runs.options import FitOptions


@click.command(short_help="Time one training step.")
@option_of(FitOptions, "batch", "-B", help="Neighbourhoods per batch.")
@option_of(FitOptions, "num_neighbours", "-K", help="Points per neighbourhood.")
@option_of(FitOptions, "image_size", default=64, help="Side length of the images, in pixels.")
@click.option("--rounds", type=Count(), default=5, show_default=True, help="Timed steps of each kind.")
@device_option
@option_of(FitOptions, "seed", help="Random seed for images and weights.")
@click.option("--json", "file", type=Location(), help="Also write the results to this file.")
@click.option("--scaling", is_flag=True, help="Also time our step with B, K or the image side halved and doubled.")
@click.option("--parts", is_flag=True, help="Also time image loading, rendering, neighbour search and DCI.")
def bench(
    batch: int, num_neighbours: int, image_size: int, rounds: int, device: str, seed: int, file: Path | None,
    scaling: bool, parts: bool,
) -> None:  # fmt: skip
    """Time a Local VAE step against a plain VAE step on the same number of images, and against other implementations.

    The implementations take turns, after one warm-up step each. "peak" is the peak memory use of the whole process.
    `higher` and `torchopt` are timed only if they are installed (pip install hierarchical-lvae[bench]).

    \b
    Examples:
      hlvae bench
      hlvae bench -B 8 -K 5 --image-size 32 --json bench.json
    """
    from hierarchical_lvae.bench.step import bench
    from hierarchical_lvae.files import write_json
    from hierarchical_lvae.training.memory import keep_freed_memory

    if file is not None:
        refuse_others(file)
    keep_freed_memory()
    timings = bench(batch, num_neighbours, (3, image_size, image_size), rounds, device, seed)
    click.echo(f"B = {batch}, K = {num_neighbours}, 3×{image_size}×{image_size}, {device}, median of {rounds}")
    click.echo(f"{'step':20} {'seconds':>9} {'÷ plain':>9} {'peak GiB':>9}")
    for name, timing in timings.items():
        if timing is None:
            click.echo(f"{name:20} {'not installed':>19}")
        else:
            peak = "–" if timing.peak_gib is None else f"{timing.peak_gib:.2f}"
            click.echo(f"{name:20} {timing.seconds:9.3f} {timing.ratio:9.2f} {peak:>9}")
    numbers: dict[str, Any] = {
        name: None if t is None else {"seconds": t.seconds, "ratio": t.ratio} for name, t in timings.items()
    }
    for b, k, side in _others(batch, num_neighbours, image_size) if scaling else ():
        shape = (3, side, side)
        found = bench(b, k, shape, rounds, device, seed, methods=("plain", "local-second-order"))["local-second-order"]
        assert found is not None
        name = f"B = {b}, K = {k}, 3×{side}×{side}"
        numbers.setdefault("scaling", {})[name] = {"seconds": found.seconds, "ratio": found.ratio}
        click.echo(f"{name:28} {found.seconds:.3f} s, {found.ratio:.2f} × plain")
    if parts:
        from hierarchical_lvae.bench.parts import bench_parts

        numbers["parts"] = bench_parts(batch, num_neighbours, rounds, seed)
        for name, seconds in numbers["parts"].items():
            click.echo(f"{seconds:9.4f} s  {name}")
    if file is not None:
        write_json(file, numbers)


def refuse_others(file: Path) -> None:
    """Refuse to replace anything but an earlier result or an empty file.

    Raises:
        FileExistsError: the file exists and is not such a result.
        OSError: no file can be written there.
    """
    from hierarchical_lvae.files import occupied, read_json

    if not occupied(file) or (file.is_file() and file.stat().st_size == 0):
        return
    try:
        ours = file.is_file() and "ratio" in read_json(file)["plain"]
    except (ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise FileExistsError(f"{file} exists and is not a result of hlvae bench: choose another --json")


def _others(batch: int, num_neighbours: int, image_size: int) -> Iterator[tuple[int, int, int]]:
    """Halve and double each of the three values, keeping the other two."""
    for factor in (0.5, 2):
        yield max(1, int(batch * factor)), num_neighbours, image_size
        yield batch, max(1, int(num_neighbours * factor)), image_size
        yield batch, num_neighbours, max(8, int(image_size * factor))
