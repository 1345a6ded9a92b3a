"""HDF5 files: each chunk is unpacked once, and what lies in other files, or was never written, is not made up."""

import os

import h5py
import numpy as np
import pytest

from hierarchical_lvae.data import arrays as arrays_module
from hierarchical_lvae.data import load_own, shapes3d
from hierarchical_lvae.data.factor_images import factor_grid

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 9, 10), np.uint8)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine.h5"


def pixels(path):
    return load_own(path).images[:, 0].numpy()


@pytest.fixture
def reads(monkeypatch):
    """The number of rows that each read of an array of images asks for."""
    counts = []
    original = h5py.Dataset.__getitem__

    def counted(dataset, index, **options):
        values = original(dataset, index, **options)
        counts.append(len(values))
        return values

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    return counts


@pytest.mark.parametrize(("chunk", "expected"), [(6, [6]), (4, [4, 2]), (2, [2, 2, 2]), (1, [3, 3]), (None, [3, 3])])
def test_each_chunk_is_read_once(path, chunk, expected, reads, monkeypatch):
    monkeypatch.setattr(arrays_module, "BLOCK", 3 * 90)
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=IMAGES, chunks=chunk and (chunk, 3, 10), compression=chunk and "gzip")
    np.testing.assert_array_equal(pixels(path), IMAGES)
    assert reads == expected


def test_each_chunk_of_3d_shapes_is_read_once(tmp_path, reads):
    grid = (2, 2, 2, 2, 2, 3)
    with h5py.File(tmp_path / "3dshapes.h5", "w") as file:
        images = np.random.default_rng(0).integers(0, 256, (96, 64, 64, 3), np.uint8)
        file.create_dataset("images", data=images, chunks=(96, 64, 64, 1), compression="gzip")
        file["labels"] = factor_grid(grid).astype(float)
    found = shapes3d.load_h5(tmp_path / "3dshapes.h5", grid).images
    np.testing.assert_array_equal(found.permute(0, 2, 3, 1).numpy(), images)
    assert reads == [96, 96]  # labels, images


def virtual(path, source, rows=6, name="x"):
    layout = h5py.VirtualLayout(IMAGES.shape, np.uint8)
    layout[:rows] = h5py.VirtualSource(source, name, IMAGES.shape)[:rows]
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("images", layout, fillvalue=7)


def test_virtual_sources_are_read_or_missed(path, monkeypatch, tmp_path):
    """HDF5 itself reads 7 where they are not there."""
    (tmp_path / "parts").mkdir()
    with h5py.File(tmp_path / "parts/a.h5", "w") as file:
        file["x"] = IMAGES
    for source in ("parts/a.h5", str(tmp_path / "parts/a.h5")):
        virtual(path, source)
        np.testing.assert_array_equal(pixels(path), IMAGES)
    virtual(tmp_path / "parts/b.h5", "a.h5")
    virtual(path, "parts/b.h5", name="images")
    np.testing.assert_array_equal(pixels(path), IMAGES)
    os.rename(tmp_path / "parts/a.h5", tmp_path / "parts/c.h5")
    with pytest.raises(
        ValueError, match=r"'images' in .*b\.h5 is virtual, and its source file a\.h5 is missing: restore"
    ):
        load_own(path)
    virtual(path, "parts/c.h5", name="y")
    with pytest.raises(ValueError, match=r"is virtual, and its source 'y' in .*c\.h5 is missing: save a copy"):
        load_own(path)


def test_virtual_sources_without_a_limit_are_read(path, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=IMAGES, maxshape=(None, 9, 10))
    layout = h5py.VirtualLayout(IMAGES.shape, np.uint8, maxshape=(None, 9, 10))
    source = h5py.VirtualSource("a.h5", "x", IMAGES.shape, maxshape=(None, 9, 10))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    with h5py.File(path, "w", libver="latest") as file:
        file.create_virtual_dataset("images", layout)
    np.testing.assert_array_equal(pixels(path), IMAGES)


def test_virtual_sources_that_are_numbered_are_read(path, tmp_path):
    for i in range(3):
        with h5py.File(tmp_path / f"{i}.h5", "w") as file:
            file["x"] = IMAGES[2 * i : 2 * i + 2]
    space = h5py.h5s.create_simple(IMAGES.shape, (h5py.h5s.UNLIMITED, 9, 10))
    space.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), (2, 1, 1), (2, 9, 10))
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_virtual(space, b"%b.h5", b"x", h5py.h5s.create_simple((2, 9, 10)))
    space.select_all()
    with h5py.File(path, "w", libver="latest") as file:
        h5py.h5d.create(file.id, b"images", h5py.h5t.NATIVE_UINT8, space, properties)
    np.testing.assert_array_equal(pixels(path), IMAGES)


def test_virtual_gaps_are_counted(path, tmp_path, caplog):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = IMAGES
    virtual(path, "a.h5", rows=4)
    assert (pixels(path)[4:] == 7).all()
    assert caplog.messages == [f"'images' in {path}: 180 of its 540 numbers were never written and are read as 7"]


def test_virtual_arrays_in_a_circle_are_refused(path, tmp_path):
    """HDF5 itself crashes."""
    virtual(path, ".", name="images")
    with pytest.raises(ValueError, match=r"'images' in .*mine\.h5 is virtual, and its sources lead back to itself"):
        load_own(path)
    virtual(path, "other.h5", name="images")
    virtual(tmp_path / "other.h5", "./mine.h5", name="images")
    with pytest.raises(ValueError, match="lead back to itself"):
        load_own(path)


def test_external_files_are_read_or_missed(path, tmp_path):
    raw = tmp_path / "raw.bin"
    raw.write_bytes(b"1234" + IMAGES.tobytes())
    with h5py.File(path, "w") as file:
        file.create_dataset("images", IMAGES.shape, np.uint8, external=[(str(raw), 4, h5py.h5f.UNLIMITED)])
    np.testing.assert_array_equal(pixels(path), IMAGES)
    raw.write_bytes(raw.read_bytes()[:-1])
    with pytest.raises(
        ValueError, match=r"'images' in .* needs 544 bytes of the external file .*raw\.bin, which has 543"
    ):
        load_own(path)
    raw.unlink()
    with pytest.raises(
        ValueError, match=r"'images' in .* needs the external file .*raw\.bin, which is missing: restore"
    ):
        load_own(path)


def test_links_are_followed_or_missed(path, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = IMAGES, np.arange(6)[:, None]
    with h5py.File(path, "w") as file:
        file["images"], file["factors"] = h5py.ExternalLink("a.h5", "/x"), h5py.ExternalLink("a.h5", "/y")
    assert load_own(path).factor_sizes == (6,)
    np.testing.assert_array_equal(pixels(path), IMAGES)
    with h5py.File(path, "a") as file:
        del file["factors"]
        file["factors"] = h5py.ExternalLink("gone.h5", "/y")
    with pytest.raises(ValueError, match=r"'factors' in .* is a link to '/y' in gone\.h5, which is missing: restore"):
        load_own(path)
    with h5py.File(path, "a") as file:
        del file["factors"]
        file["factors"] = h5py.SoftLink("/gone")
    with pytest.raises(ValueError, match=r"'factors' in .* is a link to '/gone' in .*mine\.h5, which is missing"):
        load_own(path)


def test_chunks_that_were_never_written_are_counted(path, caplog):
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", IMAGES.shape, np.uint8, chunks=(4, 9, 5), fillvalue=3)
        images[:4] = IMAGES[:4]
    assert (pixels(path)[4:] == 3).all()
    assert caplog.messages == [f"'images' in {path}: 2 of its 4 chunks were never written and are read as 3"]


def test_an_array_that_was_never_written_is_refused(path):
    with h5py.File(path, "w") as file:
        file["images"] = IMAGES
        file.create_dataset("factors", (6, 1), np.int64)
    with pytest.raises(ValueError, match=r"'factors' in .* was created but never written: write its numbers"):
        load_own(path)


def test_an_array_without_a_shape_is_refused(path):
    with h5py.File(path, "w") as file:
        file["images"] = h5py.Empty("u1")
    with pytest.raises(ValueError, match=r"'images' in .* has shape \(\)"):
        load_own(path)


def test_a_type_that_numpy_lacks_is_refused(path):
    """Floats of 100 bits."""
    kind = h5py.h5t.IEEE_F64LE.copy()
    kind.set_size(32)
    kind.set_precision(200)
    kind.set_fields(199, 180, 19, 0, 180)
    with h5py.File(path, "w") as file:
        h5py.h5d.create(file.id, b"images", kind, h5py.h5s.create_simple(IMAGES.shape))
    with pytest.raises(
        ValueError, match=r"'images' in .*mine\.h5 has a type that NumPy lacks \(.*\): save plain numbers"
    ):
        load_own(path)
