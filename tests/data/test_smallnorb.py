"""SmallNORB: from packed and unpacked matrices, the order of the images, and how wrong files are refused."""

import gzip
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from hierarchical_lvae.data import load_dataset, smallnorb
from hierarchical_lvae.data.norb_matrix import read_blocks

STATES = (2, 2, 2, 2, 2)
DAT, CAT, INFO = (f"{smallnorb.HALVES[0]}-{matrix}.mat" for matrix in ("dat", "cat", "info"))


@pytest.mark.parametrize("packed", [True, False])
def test_images_are_sorted_by_all_five_columns(tmp_path, make, packed):
    make.write_norb(tmp_path, packed=packed)
    dataset = smallnorb.load(tmp_path, STATES)
    assert dataset.images.shape == (32, 1, 64, 64)
    levels = dataset.images.flatten(1)
    assert (levels == 8 * torch.arange(32)[:, None]).all()  # of camera 0; bytes over 127 are bright, not negative
    assert dataset.batch(torch.tensor([31])).mean() > 0.97
    assert dataset.factor_names == ("category", "elevation", "azimuth", "lighting")
    assert dataset.factor_sizes == (2, 2, 2, 2)
    for index in (0, 7, 9, 16, 30):
        category, _, *rest = (index >> bit & 1 for bit in (4, 3, 2, 1, 0))
        assert dataset.factors[index].tolist() == [category, *rest]


def test_images_are_resized_by_the_lanczos_filter(tmp_path, make):
    files = make.norb_files()
    images = np.random.default_rng(0).integers(0, 256, (16, 2, 96, 96), np.uint8)
    files[DAT] = make.norb_matrix(images)
    make.write_norb(tmp_path, files)
    levels = smallnorb.load(tmp_path, STATES).images[:, 0].numpy()
    expected = Image.fromarray(images[3, 0]).resize((64, 64), Image.Resampling.LANCZOS)
    assert any(np.array_equal(image, np.asarray(expected)) for image in levels)


def test_images_are_decoded_once(tmp_path, make, monkeypatch):
    make.write_norb(tmp_path)
    first = smallnorb.load(tmp_path, STATES)
    monkeypatch.setattr(smallnorb, "_decode", None)
    again = smallnorb.load(tmp_path, STATES)
    assert torch.equal(first.images, again.images)
    assert first.fingerprint == again.fingerprint


def test_each_missing_file_is_told(tmp_path, make):
    make.write_norb(tmp_path)
    missing = tmp_path / f"{smallnorb.HALVES[1]}-info.mat.gz"
    missing.unlink()
    with pytest.raises(FileNotFoundError, match=f"^{missing.name} is not in {tmp_path}: download it with `hlvae"):
        load_dataset("smallnorb", tmp_path)


def int32(*numbers):
    return struct.pack(f"<{len(numbers)}i", *numbers)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            DAT,
            lambda c: c[:-1],
            r"cannot be read \(it ends after 294,911 of 294,912 bytes\): is the down",
        ),
        (DAT, lambda c: c[:20_000], "it ends after 19,976 of 294,912 bytes"),
        (DAT, lambda c: c[:10], "it ends within its header"),
        (CAT, lambda c: b"", "it ends within its header"),
        (DAT, lambda c: c + b"\0", "continues after its 294,912 bytes"),
        (CAT, lambda c: c + b"\0" * 4, "continues after its 64 bytes"),
        (
            DAT,
            lambda c: int32(0x1E3D4C54) + c[4:],
            "not a NORB matrix of uint8: its magic number is 0x1e3d4c54, not 0x1e3d4c55",
        ),
        (INFO, lambda c: int32(0x1E3D4C51) + c[4:], "not a NORB matrix of int32"),
        (DAT, lambda c: b"\x89HDF\r\n\x1a\n" + c, "not a NORB matrix of uint8: its magic number is 0x46444889"),
        (
            DAT,
            lambda c: c[:4] + int32(4, 2**30, 2**30, 2**30, 2**30) + c[24:],
            r"not \(16, 2, 96, 96\): is it S",
        ),
        (DAT, lambda c: c[:4] + int32(2**30) + c[8:], r"has 1073741824 dimensions"),
        (DAT, lambda c: c[:4] + int32(-1) + c[8:], r"has -1 dimensions"),
        (
            INFO,
            lambda c: c[:4] + int32(2, 4, 16, 1) + c[20:],
            r"2 dimensions and sizes \(4, 16, 1\), not \(16, 4\)",
        ),
        (CAT, lambda c: c[:20] + int32(2) + c[24:], r"has a state outside the range \(2, 2, 2, 2, 2\)"),
        (CAT, lambda c: c[:20] + int32(-1) + c[24:], "has a state outside"),
        (INFO, lambda c: c[:28] + int32(1) + c[32:], "has a state outside"),  # an odd azimuth
        (CAT, lambda c: c[:20] + bytes(64), "states of SmallNORB do not occur exactly once each"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, make, file, change, message, packed):
    files = make.norb_files()
    files[file] = change(files[file])
    make.write_norb(tmp_path, files, packed)
    with pytest.raises(ValueError, match=message) as info:
        smallnorb.load(tmp_path, STATES)
    assert "\n" not in str(info.value)
    assert not (tmp_path / "hlvae-smallnorb-64.npz").exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "garbage"])
def test_a_broken_gzip_is_refused(tmp_path, make, damage):
    make.write_norb(tmp_path)
    path = tmp_path / f"{DAT}.gz"
    content = path.read_bytes()
    wrong = {"truncated": content[:-9], "flipped": content[:-6] + b"\xff" + content[-5:], "garbage": b"<html>"}
    path.write_bytes(wrong[damage])
    with pytest.raises(ValueError, match=rf"{DAT}\.gz cannot be read \(.*\): is the download complete\?$"):
        smallnorb.load(tmp_path, STATES)


def test_the_true_sizes_are_demanded(tmp_path, make):
    """Files with the true headers, whose images end too soon: found before the images are asked for, or then."""
    make.write_norb(tmp_path)
    with pytest.raises(ValueError, match=r"-cat.mat.gz has 1 dimensions and sizes \(16, 1, 1\), not \(24300,\)"):
        load_dataset("smallnorb", tmp_path)
    states = np.indices((5, 10, 9, 18, 6)).reshape(5, -1).T.astype(np.int32) * [1, 1, 1, 2, 1]
    files = {}
    for half, instances in zip(smallnorb.HALVES, ([4, 6, 7, 8, 9], [0, 1, 2, 3, 5]), strict=True):
        rows = states[np.isin(states[:, 1], instances)].astype(np.int32)
        files[f"{half}-dat.mat"] = make.norb_matrix(np.zeros((1, 2, 96, 96), np.uint8), sizes=(24300, 2, 96, 96))
        files[f"{half}-cat.mat"] = make.norb_matrix(rows[:, 0].copy())
        files[f"{half}-info.mat"] = make.norb_matrix(rows[:, 1:].copy())
    assert [len(files[file]) for file in (CAT, INFO)] == [97_220, 388_820]
    make.write_norb(tmp_path, files, packed=False)
    with pytest.raises(ValueError, match=r"-dat.mat cannot be read \(it ends after 18,432 of 447,897,600 bytes\)"):
        load_dataset("smallnorb", tmp_path)


def test_matrices_are_read_in_blocks(tmp_path, make):
    array = np.arange(7 * 2, dtype=np.int32).reshape(7, 2)
    for path in (tmp_path / "x.mat", tmp_path / "x.mat.gz"):
        content = make.norb_matrix(array)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        blocks = list(read_blocks(path, "int32", (7, 2), rows=3))
        assert [len(block) for block in blocks] == [3, 3, 1]
        np.testing.assert_array_equal(np.concatenate(blocks), array)
