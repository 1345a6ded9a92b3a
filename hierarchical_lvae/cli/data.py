"""`hlvae data`: list, describe, download and render data sets."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hierarchical_lvae.cli.names import Location, Name, NameOrPath, Suggesting, data_dir_option
from hierarchical_lvae.data import DATASETS
from hierarchical_lvae.runs import PRETRAINED

if TYPE_CHECKING:
    from hierarchical_lvae.data import FactorImages, Part


@click.group(cls=Suggesting)
def data() -> None:
    """List, describe, download or render data sets.

    \b
    Examples:
      hlvae data list
      hlvae data download 3dshapes --data-dir data
      hlvae data render 3dshapes --out replica.h5
    """


@data.command("list")
def list_command() -> None:
    """List the data sets and the pretrained runs.

    For each pretrained run, print what it shows and the command that trained it.

    \b
    Example:
      hlvae data list
    """
    for name in DATASETS:
        click.echo(name)
    for name, (what, command) in PRETRAINED.items():
        click.echo(f"\npretrained:{name}\n    {what}\n    {command}")


@data.command()
@click.argument("name", type=NameOrPath(DATASETS))
@data_dir_option
@click.option("--skip-bad", is_flag=True, help="Skip image files that cannot be read.")
def info(name: str, data_dir: Path | None, skip_bad: bool) -> None:
    """Show the size, factors and source of a data set, and how to get its files.

    Give a name from `hlvae data list`, or your own data: a folder of images, an .npz file or an .h5 file.

    \b
    Examples:
      hlvae data info 3dshapes
      hlvae data info pictures/
    """
    from hierarchical_lvae.data import default_data_dir, load_dataset
    from hierarchical_lvae.data.sources import SOURCES

    directory = data_dir or default_data_dir()
    there = [] if data_dir is None else ["--data-dir", str(data_dir)]
    download = shlex.join(["hlvae", "data", "download", name, *there])
    for source in SOURCES.get(name, ()):
        path = source.find(directory)
        where = f"found at {path}" if path else f"not in {directory} ({source.size}; {download})"
        click.echo(f"file     {source.file}: {where}")
    dataset = load_dataset(name, data_dir, skip_bad=skip_bad)
    channels, height, width = dataset.image_shape
    click.echo(f"source   {dataset.source}")
    click.echo(
        f"images   {len(dataset):,} of {height} × {width} pixels, {channels} channel{'s' * (channels > 1)}, uint8"
    )
    for part in dataset.parts:
        click.echo(f"part     {part.name}, {part.stop - part.start:,} images: {_factors(part)}")
    if not dataset.parts:
        click.echo(f"factors  {_factors(dataset)}")


def _factors(dataset: "FactorImages | Part") -> str:
    factors = zip(dataset.factor_names, dataset.factor_sizes, strict=True)
    return ", ".join(f"{factor} {size}" for factor, size in factors) or "none known"


@data.command()
@click.argument("name", type=Name(DATASETS))
@click.option("--data-dir", type=Location(), help="Directory to download to [default: $HLVAE_DATA or user cache]")
def download(name: str, data_dir: Path | None) -> None:
    """Download a data set and verify its published checksums.

    An interrupted download is resumed when the command is run again.

    \b
    Example:
      hlvae data download 3dshapes --data-dir data
    """
    from hierarchical_lvae.data import default_data_dir, sources

    for path in sources.download(name, data_dir or default_data_dir()):
        click.echo(path)


@data.command()
@click.argument("name", type=Name(["3dshapes"]))
@click.option("--out", type=Location(), required=True, help="The .h5 file to write (about 870 MB).")
@data_dir_option
def render(name: str, out: Path, data_dir: Path | None) -> None:
    """Render the 3D Shapes replica to an .h5 file.

    The file has the same layout as the official 3dshapes.h5.

    \b
    Example:
      hlvae data render 3dshapes --out replica.h5
    """
    from hierarchical_lvae.data import default_data_dir
    from hierarchical_lvae.data.export import write_h5
    from hierarchical_lvae.data.paths import HDF5_SUFFIXES
    from hierarchical_lvae.data.shapes3d import replica
    from hierarchical_lvae.files import occupied

    if out.suffix.lower() not in HDF5_SUFFIXES:
        raise ValueError(f"{out} does not end in {' or '.join(HDF5_SUFFIXES)}: `--dataset` could not read it")
    if occupied(out):
        raise FileExistsError(f"{out} already exists: choose another --out")
    write_h5(replica(data_dir or default_data_dir()), out)
    click.echo(out)
