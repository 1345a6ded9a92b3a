"""What every data set must give, and how a wrong one is refused."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from hierarchical_lvae.data import DATASETS, FactorImages, Part, load_dataset
from hierarchical_lvae.data.factor_images import factor_grid
from hierarchical_lvae.data.replica import ReplicaImages
from hierarchical_lvae.data.shapes3d import FACTOR_NAMES, FACTOR_SIZES, load_h5

GRID = (2, 2, 2, 2, 2, 3)  # of the stand-in file


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A data directory that keeps the rendered replica through the session."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(params=[*DATASETS, "own.npz", "own_folder"])
def name(request, cache, make, small_sizes):
    """The name or path of every kind of data set, with small files in `cache` where none are shipped."""
    if request.param in ("cars3d", "carsnorb") and not (cache / "cars").exists():
        make.write_cars(cache / "cars")
    if request.param in ("smallnorb", "carsnorb"):
        make.write_norb(cache)
    if request.param == "dsprites":
        make.write_sprites(cache)
    rng = np.random.default_rng(0)
    if request.param == "own.npz":
        factors = np.column_stack([np.arange(9) // 3, np.arange(9) % 3])
        np.savez(cache / "own.npz", images=rng.integers(0, 256, (9, 8, 12, 3), np.uint8), factors=factors)
    if request.param == "own_folder":
        for i in range(9):
            (cache / f"own_folder/{i % 2}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (20, 9 + i), np.uint8)).save(cache / f"own_folder/{i % 2}/{i}.png")
    return str(cache / request.param) if request.param.startswith("own") else request.param


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_data_set_is_alike(name, cache):
    dataset = load_dataset(name, cache)
    n = len(dataset)
    assert isinstance(dataset, FactorImages)
    assert dataset.factors.shape == (n, len(dataset.factor_names)) == (n, len(dataset.factor_sizes))
    assert (dataset.factors.min(0) == 0).all()
    assert (dataset.factors.max(0) + 1 == dataset.factor_sizes).all()
    index = torch.tensor([n - 1, 0, 7])
    assert dataset.images[index].dtype == torch.uint8
    x = dataset.batch(index)
    assert x.shape == (3, *dataset.image_shape)
    assert x.dtype == torch.float32
    assert 0 <= x.min() < x.max() <= 1
    assert torch.equal(x[1:2], dataset.batch(torch.tensor([0])))
    assert dataset.source
    assert len(dataset.fingerprint) == 16
    assert dataset.fingerprint == load_dataset(name, cache).fingerprint
    assert torch.equal(dataset.to("cpu").batch(index), x)
    small = dataset.resized(8)
    assert small.image_shape == (dataset.image_shape[0], 8, 8) == tuple(small.batch(index).shape[1:])
    assert dataset.to("cpu").parts is dataset.parts is small.parts
    if dataset.parts:
        assert [part.start for part in dataset.parts] + [n] == [0] + [part.stop for part in dataset.parts]
    for part in dataset.parts:
        assert part.factors.shape == (part.stop - part.start, len(part.factor_names))
        assert (part.factors.max(0) + 1 == part.factor_sizes).all()


def write_h5(path, grid=GRID, **changes):
    """A stand-in for 3dshapes.h5: official keys, dtypes and label values, of a smaller grid."""
    rng = np.random.default_rng(0)
    factors = factor_grid(grid)
    steps = [0.1, 0.1, 0.1, 1 / 14, 1.0, 30.0]
    starts = [0.0, 0.0, 0.0, 0.75, 0.0, -30.0]
    arrays = {
        "images": rng.integers(0, 256, (len(factors), 64, 64, 3), dtype=np.uint8),
        "labels": factors * np.array(steps) + starts,
    }
    arrays |= changes
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            if array is not None:
                file.create_dataset(key, data=array, compression="gzip")
    return arrays


def test_the_official_file_and_the_replica_are_one_grid(tmp_path, cache):
    arrays = write_h5(tmp_path / "3dshapes.h5")
    real = load_h5(tmp_path / "3dshapes.h5", GRID)
    replica = load_dataset("3dshapes", cache)
    assert real.factor_names == replica.factor_names == FACTOR_NAMES
    assert replica.factor_sizes == FACTOR_SIZES
    assert isinstance(replica.images, ReplicaImages)
    assert "replica" in replica.source
    assert "replica" not in real.source
    # the same order: bases 48000, 4800, 480, 60, 15, 1
    assert replica.factors[48_000 * 3 + 4_800 * 1 + 480 * 4 + 60 * 1 + 15 * 5 + 14].tolist() == [3, 1, 4, 2, 1, 14]
    assert real.factors[11].tolist() == [0, 0, 0, 1, 1, 2]
    index = torch.tensor([5, 90])
    assert real.images[index].shape == replica.images[index].shape == (2, 3, 64, 64)
    np.testing.assert_array_equal(real.images[index].permute(0, 2, 3, 1).numpy(), arrays["images"][[5, 90]])


def test_an_official_file_is_preferred_to_the_replica(tmp_path, monkeypatch):
    write_h5(tmp_path / "3dshapes.h5")
    with pytest.raises(ValueError, match=r"'images' in .* is uint8 .*, not uint8 \(480000, 64, 64, 3\)"):
        load_dataset("3dshapes", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "has no 'labels'"),
        ({"images": np.zeros((96, 64, 64, 3), np.float32)}, "'images' in .* is float32"),
        ({"images": np.zeros((96, 32, 64, 3), np.uint8)}, r"not uint8 \(96, 64, 64, 3\)"),
        ({"labels": np.zeros((96, 6), np.int64)}, "'labels' in .* is int64"),
        ({"labels": factor_grid(GRID)[::-1].astype(float)}, "not in the official order"),
        ({"labels": np.full((96, 6), np.nan)}, "not in the official order"),
    ],
)
def test_a_file_that_is_not_the_official_one_is_refused(tmp_path, changes, message):
    write_h5(tmp_path / "3dshapes.h5", **changes)
    with pytest.raises(ValueError, match=message):
        load_h5(tmp_path / "3dshapes.h5", GRID)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "3dshapes.h5"
    write_h5(path)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(ValueError, match=r"cannot be read as HDF5 .*is the file complete\?"):
        load_h5(path, GRID)


def test_resized_images_keep_their_brightness(cache):
    dataset = load_dataset("3dshapes", cache)
    index = torch.tensor([1000, 200_000])
    small = dataset.resized(32)
    assert small.image_shape == (3, 32, 32)
    assert small.batch(index).shape == (2, 3, 32, 32)
    torch.testing.assert_close(small.batch(index).mean((2, 3)), dataset.batch(index).mean((2, 3)), rtol=0.01, atol=0.01)


def test_unknown_names_and_places_are_refused(tmp_path):
    with pytest.raises(ValueError, match="did you mean '3dshapes'"):
        load_dataset("3dshape")
    with pytest.raises(ValueError, match=r"choose from 3dshapes, digits, .* \(or give a folder of images, an \.npz"):
        load_dataset("zzz")
    with pytest.raises(FileNotFoundError, match=r"^some/where does not exist: give a folder of images"):
        load_dataset("some/where")
    with pytest.raises(FileNotFoundError, match=r"^mine\.NPZ does not exist"):
        load_dataset("mine.NPZ")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_dataset("digits", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cars3d", "nips2015-analogy-data.tar.gz"),
        ("smallnorb", "smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat.gz"),
        ("dsprites", "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"),
    ],
)
def test_missing_files_are_told_with_the_remedy(name, file, tmp_path):
    command = f"`hlvae data download {name} --data-dir {tmp_path}`"
    with pytest.raises(FileNotFoundError) as info:
        load_dataset(name, tmp_path)
    assert str(info.value) == f"{file} is not in {tmp_path}: download it with {command}"


def test_a_name_goes_before_a_folder_and_a_path_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert len(load_dataset("digits")) == 1797
    for path in ("./digits", Path("digits")):
        with pytest.raises(ValueError, match="digits contains no images"):
            load_dataset(path)


def test_named_images_are_shrunk_but_not_blown_up(cache):
    assert load_dataset("3dshapes", cache, image_size=32).image_shape == (3, 32, 32)
    assert load_dataset("digits", cache, image_size=32).image_shape == (1, 8, 8)


def test_fingerprints_tell_data_apart():
    digits = load_dataset("digits")
    changed = digits.images.clone()
    changed[0, 0, 0, 0] += 1
    other = FactorImages(changed, digits.factors, digits.factor_names, digits.factor_sizes, "changed")
    assert other.fingerprint != digits.fingerprint


def test_the_fingerprint_of_a_plain_set_does_not_know_of_parts():
    digits = load_dataset("digits")
    part = Part("all", 0, len(digits), digits.factors, digits.factor_names, digits.factor_sizes)
    assert replace(digits, parts=()).fingerprint == digits.fingerprint != replace(digits, parts=(part,)).fingerprint


def test_every_image_counts_for_the_fingerprint():
    digits = load_dataset("digits")
    for i in (1, 100, 1000, 1796):
        images = digits.images.clone()
        images[i, 0, 4, 4] ^= 1
        assert replace(digits, images=images).fingerprint != digits.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"name": "b"},
        {"start": 1},
        {"factors": np.array([[0], [1], [1]])},
        {"factor_names": ("other",)},
        {"factor_sizes": (3,)},
    ],
)
def test_fingerprints_cover_the_parts(change):
    part = Part("a", 0, 3, np.array([[0], [1], [0]]), ("x",), (2,))
    images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    union = FactorImages(images, np.zeros((3, 0)), (), (), "test", parts=(part,))
    prints = {
        union.fingerprint,
        replace(union, parts=()).fingerprint,
        replace(union, parts=(part._replace(**change),)).fingerprint,
    }
    assert len(prints) == 3
