"""dSprites: the order, the levels, the pickle that is left alone, and how wrong files are refused."""

import zipfile

import numpy as np
import pytest
import torch

from hierarchical_lvae.data import dsprites, load_dataset

SIZES = (2, 2, 2, 2, 2)


def test_images_are_black_and_white_and_in_order(tmp_path, make):
    make.write_sprites(tmp_path)
    dataset = dsprites.load(tmp_path, SIZES)
    assert dataset.images.shape == (32, 1, 64, 64)
    assert dataset.images.unique().tolist() == [0, 255]
    assert torch.equal(dataset.batch(torch.arange(32)).sum((1, 2, 3)), torch.arange(32.0))
    assert dataset.factor_names == ("shape", "scale", "orientation", "x", "y")
    assert dataset.factors[13].tolist() == [0, 1, 1, 0, 1]


def test_the_pickle_in_the_file_is_not_touched(tmp_path, make):
    make.write_sprites(tmp_path)
    dsprites.load(tmp_path, SIZES)
    assert not make.Trap.sprung
    with np.load(tmp_path / dsprites.FILE, allow_pickle=True) as arrays:
        arrays["metadata"]
    assert make.Trap.sprung  # so it would have been seen
    make.Trap.sprung = False


def swapped(array):
    return array[[1, 0, *range(2, len(array))]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda a: {"imgs": None}, "has no 'imgs'"),
        (lambda a: {"latents_classes": None}, "has no 'latents_classes'"),
        (lambda a: {"imgs": a["imgs"][:-1]}, r"'imgs' in .* is uint8 \(31, 64, 64\), not uint8 \(32, 64, 64\)"),
        (lambda a: {"imgs": a["imgs"].astype(float)}, "'imgs' in .* is float64"),
        (lambda a: {"imgs": a["imgs"] * 255}, "'imgs' in .* has the value 255, not only 0 and 1"),
        (lambda a: {"imgs": a["imgs"].astype(object)}, "'imgs' in .* holds Python objects"),
        (lambda a: {"latents_classes": a["latents_classes"].astype(np.int32)}, "'latents_classes' in .* is int32"),
        (lambda a: {"latents_classes": a["latents_classes"][:, 1:]}, r"'latents_classes' in .* is int64 \(32, 5\)"),
        (lambda a: {"latents_classes": swapped(a["latents_classes"])}, "is not in the order of the grid"),
        (lambda a: {"latents_classes": a["latents_classes"] + [1, 0, 0, 0, 0, 0]}, "is not in the order of the grid"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, make, changes, message):
    make.write_sprites(tmp_path, **changes(make.sprites_arrays()))
    with pytest.raises(ValueError, match=message):
        dsprites.load(tmp_path, SIZES)


def test_columns_first_is_read_alike(tmp_path, make):
    make.write_sprites(tmp_path)
    images = dsprites.load(tmp_path, SIZES).images
    make.write_sprites(tmp_path, imgs=np.asfortranarray(make.sprites_arrays()["imgs"]))
    assert torch.equal(dsprites.load(tmp_path, SIZES).images, images)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "garbage", "empty"])
def test_a_broken_file_is_refused(tmp_path, make, damage):
    make.write_sprites(tmp_path)
    path = tmp_path / dsprites.FILE
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("imgs.npy")
    at = info.header_offset + info.compress_size - 20  # in the last images
    wrong = {
        "truncated": content[:-100],
        "flipped": content[:at] + bytes(255 - b for b in content[at : at + 40]) + content[at + 40 :],
        "garbage": b"not a zip",
        "empty": b"",
    }
    path.write_bytes(wrong[damage])
    with pytest.raises(ValueError, match=r"cannot be read as an \.npz \(.*\): is the file complete\?$"):
        dsprites.load(tmp_path, SIZES)


def test_the_true_size_is_demanded(tmp_path, make):
    make.write_sprites(tmp_path)
    with pytest.raises(ValueError, match=r"'imgs' in .* is uint8 \(32, 64, 64\), not uint8 \(737280, 64, 64\)"):
        load_dataset("dsprites", tmp_path)
