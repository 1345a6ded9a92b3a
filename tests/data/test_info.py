"""`hlvae data info` of every kind of data, in lines for people."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hierarchical_lvae.cli.app import hlvae


def info(*args):
    return CliRunner().invoke(hlvae, ["data", "info", *map(str, args)])


def test_own_images_are_described(tmp_path):
    for i, folder in enumerate(("cats", "dogs", "dogs")):
        (tmp_path / "pets" / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + i, 30)).save(tmp_path / "pets" / folder / f"{i}.png")
    result = info(tmp_path / "pets")
    assert result.output.splitlines() == [
        "source   images of pets (own data)",
        "images   3 of 64 × 64 pixels, 3 channels, uint8",
        "factors  folder 2",
    ]
    (tmp_path / "pets/dogs/3.png").write_bytes(b"bad")
    result = info(tmp_path / "pets")
    assert result.exit_code == 1
    assert "3.png cannot be read as an image" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "images   3 of" in info(tmp_path / "pets", "--skip-bad").output


def test_own_arrays_are_described(tmp_path):
    np.savez(tmp_path / "mine.npz", images=np.zeros((4, 8, 9), np.uint8))
    assert info(tmp_path / "mine.npz").output.splitlines() == [
        "source   images of mine.npz (own data)",
        "images   4 of 8 × 9 pixels, 1 channel, uint8",
        "factors  none known",
    ]


def test_the_parts_of_a_union_are_described(tmp_path, make, small_sizes):
    make.write_cars(tmp_path / "cars")
    make.write_norb(tmp_path)
    lines = info("carsnorb", "--data-dir", tmp_path).output.splitlines()
    assert len(lines) == 7 + 4
    assert all(f"found at {tmp_path}" in line for line in lines[:7])  # unpacked
    assert lines[-4:] == [
        "source   CarsNORB (Cars3D and SmallNORB)",
        "images   224 of 64 × 64 pixels, 3 channels, uint8",
        "part     cars3d, 192 images: elevation 4, azimuth 24, object 2",
        "part     smallnorb, 32 images: category 2, elevation 2, azimuth 2, lighting 2",
    ]


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("digit", 2, "'digit' is unknown: did you mean 'digits'? (or give a folder of images, an .npz or an .h5)"),
        ("./digit", 1, "digit does not exist: give a folder of images, an .npz or an .h5"),
        ("", 2, "'' is unknown"),
    ],
)
def test_what_is_nothing_is_refused_in_a_line(name, code, message):
    result = info(name)
    assert result.exit_code == code
    assert message in result.stderr.splitlines()[-1]


def test_missing_files_are_told_with_where_to_get_them(tmp_path):
    result = info("dsprites", "--data-dir", tmp_path)
    assert result.exit_code == 1
    assert "about 26 MB; hlvae data download dsprites" in result.stdout
    assert f"download it with `hlvae data download dsprites --data-dir {tmp_path}`" in result.stderr
