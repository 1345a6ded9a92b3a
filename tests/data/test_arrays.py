"""The user's own arrays, alike from `.npz` and HDF5: layouts, types, factors, framing; how wrong ones are refused."""

import io
import os
import zipfile

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from hierarchical_lvae.data import arrays as arrays_module
from hierarchical_lvae.data import load_own

N = 5
RGB = np.random.default_rng(0).integers(0, 256, (N, 10, 12, 3), np.uint8)
GREY = RGB[..., 0]


def write(path, **arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
        return path
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            array = np.asarray(array)
            file.create_dataset(key, data=array.astype(h5py.string_dtype()) if array.dtype.kind == "U" else array)
    return path


@pytest.fixture(params=["data.npz", "data.h5", "data.HDF5"])
def path(request, tmp_path):
    return tmp_path / request.param


@pytest.mark.parametrize("block", [1, 2**22])
@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (GREY, GREY[:, None]),
        (GREY[..., None], GREY[:, None]),
        (GREY[:, None], GREY[:, None]),
        (RGB, RGB.transpose(0, 3, 1, 2)),
        (RGB.transpose(0, 3, 1, 2), RGB.transpose(0, 3, 1, 2)),
        (np.asfortranarray(RGB), RGB.transpose(0, 3, 1, 2)),
        (RGB / 255, RGB.transpose(0, 3, 1, 2)),
        ((RGB / 255).astype(np.float16), RGB.transpose(0, 3, 1, 2)),
        ((GREY / 255).astype(">f4"), GREY[:, None]),
        (GREY > 9, (GREY > 9)[:, None] * 255),
    ],
)
def test_every_layout_and_type_is_read(path, images, expected, block, monkeypatch):
    monkeypatch.setattr(arrays_module, "BLOCK", block)
    dataset = load_own(write(path, images=images))
    np.testing.assert_array_equal(dataset.images.numpy(), expected)
    assert dataset.factors.shape == (N, 0)
    assert dataset.source == f"images of {path.name} (own data)"


def test_compressed_files_are_read(tmp_path):
    np.savez_compressed(tmp_path / "data.npz", images=RGB)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_dataset("images", data=RGB, compression="gzip")
    for name in ("data.npz", "data.h5"):
        assert torch.equal(load_own(tmp_path / name).images, torch.from_numpy(RGB).permute(0, 3, 1, 2))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, float, bool])
def test_factors_are_replaced_by_their_ranks(path, dtype):
    factors = np.array([[1, 0], [0, 0], [1, 1], [0, 1], [1, 0]]).astype(dtype)
    if dtype is not bool:
        factors[:, 0] = [30, 7, 30, 9, 7]
    dataset = load_own(write(path, images=RGB, factors=factors, factor_names=["größe", "b"]))
    first = [1, 0, 1, 0, 1] if dtype is bool else [2, 0, 2, 1, 0]
    assert dataset.factors.tolist() == [list(row) for row in zip(first, [0, 0, 1, 1, 0], strict=True)]
    assert dataset.factor_sizes == (2 if dtype is bool else 3, 2)
    assert dataset.factor_names == ("größe", "b")


def test_factors_need_no_names_and_names_may_be_bytes(path):
    factors = np.arange(2 * N).reshape(N, 2)
    assert load_own(write(path, images=RGB, factors=factors)).factor_names == ("factor_0", "factor_1")
    assert load_own(write(path, images=RGB, factors=factors, factor_names=[b"x", b"y"])).factor_names == ("x", "y")
    assert load_own(write(path, images=RGB, factors=factors[:, :0])).factor_sizes == ()


@pytest.mark.parametrize("frame", ["crop", "pad"])
@pytest.mark.parametrize("images", [RGB, GREY, RGB / 255])
def test_images_are_made_square_where_a_size_is_asked_for(path, frame, images):
    dataset = load_own(write(path, images=images), 8, frame)
    channels = 3 if images.ndim == 4 else 1
    assert dataset.images.shape == (N, channels, 8, 8)
    image = Image.fromarray(RGB[2] if channels == 3 else GREY[2])
    if frame == "crop":
        expected = np.asarray(image.crop((1, 0, 11, 10)).resize((8, 8), Image.Resampling.LANCZOS))
        found = dataset.images[2].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(found, expected.reshape(found.shape))
    else:
        assert not dataset.images[:, :, 7].any()
        assert dataset.images[:, :, 6].any()


def test_arrays_are_never_enlarged(path):
    assert torch.equal(load_own(write(path, images=RGB), 32).images, load_own(path).images)


def test_an_hdf5_that_claims_what_it_has_not_is_refused(tmp_path):
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("images", (60_000, 64, 64), np.uint8, chunks=(1, 64, 64), compression="gzip")
    with pytest.raises(ValueError, match=r"'images' in .*bomb\.h5 was created but never written: write its numbers"):
        load_own(tmp_path / "bomb.h5")


def bad_floats(value):
    images = GREY / 255
    images[1, 2, 3] = value
    return images


REMEDY = r"give floats in \[0, 1\] \(1 is white\), uint8 \(255 is white\), or bool$"
NAMED = {"images": RGB, "factors": np.zeros((N, 2), int)}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"imgs": RGB}, "has no array 'images': save"),
        ({"images": RGB[0, 0]}, r"'images' in .* has shape \(12, 3\): give"),
        ({"images": np.uint8(3)}, r"'images' in .* has shape \(\): give"),
        ({"images": RGB[:0]}, "with at least one image"),
        ({"images": RGB[:, :7]}, "sides of at least 8"),
        ({"images": np.zeros((N, 10, 12, 4), np.uint8)}, "1 or 3 channels"),
        ({"images": np.zeros((N, 3, 10, 3), np.uint8)}, r"has shape \(5, 3, 10, 3\)"),
        ({"images": RGB.astype(np.int64)}, rf"has int64 values from 0 to 255: {REMEDY}"),
        ({"images": GREY.astype(np.uint16) * 16 + 7}, rf"has uint16 values from 7 to 4087: {REMEDY}"),
        ({"images": (GREY > 9).astype(np.int8)}, rf"has int8 values from 0 to 1: {REMEDY}"),
        ({"images": RGB.astype(complex)}, rf"'images' in .* is complex128: {REMEDY}"),
        ({"images": bad_floats(1.5)}, rf"has float64 values from 0 to 1\.5: {REMEDY}"),
        ({"images": bad_floats(1 + 1e-7)}, r"from 0 to 1\.0000001: "),
        ({"images": bad_floats(1 + 2**-52)}, r"from 0 to 1\.0000000000000002: "),
        ({"images": bad_floats(-0.25)}, r"from -0\.25 to 1: "),
        ({"images": bad_floats(np.inf)}, "from 0 to inf: "),
        ({"images": bad_floats(np.nan)}, rf"from 0 to 1 and 1 NaN: {REMEDY}"),
        ({"images": np.full((N, 8, 8), np.nan)}, r"from nan to nan and 320 NaN"),
        ({"images": GREY.astype(np.float32)}, r"has float32 values from 0 to 255: "),
        (
            {"images": RGB, "factors": np.zeros((N - 1, 2), int)},
            r"'factors' in .* has shape \(4, 2\): give \(5, F\)",
        ),
        ({"images": RGB, "factors": np.zeros(N, int)}, r"'factors' in .* has shape \(5,\)"),
        ({"images": RGB, "factors": np.full((N, 2), 0.5)}, "'factors' in .* has numbers that are not whole"),
        ({"images": RGB, "factors": np.full((N, 2), np.nan)}, "'factors' in .* has numbers that are not whole"),
        ({"images": RGB, "factors": np.full((N, 2), "a")}, "'factors' in .*: give whole numbers"),
        ({"images": RGB, "factor_names": ["a", "b"]}, "has 'factor_names' but no 'factors'"),
        (NAMED | {"factor_names": ["a"]}, r"'factor_names' in .* \(1,\): give 2 strings"),
        (NAMED | {"factor_names": [1, 2]}, "'factor_names' in .*: give 2 strings"),
        (NAMED | {"factor_names": ["a", "a"]}, "has an empty or a repeated name: 'a', 'a'"),
        (NAMED | {"factor_names": ["a", ""]}, "has an empty or a repeated name"),
        (NAMED | {"factor_names": ["a\nb", "a\nb"]}, r"repeated name: 'a\\nb', 'a\\nb'"),
    ],
)
def test_wrong_arrays_are_refused(path, arrays, message):
    write(path, **arrays)
    with pytest.raises(ValueError, match=message) as info:
        load_own(path)
    assert str(path) in str(info.value)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_broken_files_are_refused(path, damage):
    write(path, images=RGB)
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "garbage": b"no arrays", "empty": b""}[damage])
    with pytest.raises(ValueError, match=r"cannot be read as .* \(.*\): is the file complete\?$"):
        load_own(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_changed_byte_is_noticed_in_every_version_of_python(tmp_path, compressed, monkeypatch):
    path = tmp_path / "data.npz"
    images = np.random.default_rng(0).integers(256, size=(99, 32, 32), dtype=np.uint8)
    (np.savez_compressed if compressed else np.savez)(path, images=images)
    content = bytearray(path.read_bytes())
    content[50_000] ^= 1
    path.write_bytes(content)
    monkeypatch.delattr(zipfile.ZipExtFile, "seek")  # after it, Python 3.12 and later verify no checksum
    with pytest.raises(
        ValueError, match=r"cannot be read as an \.npz \((Bad CRC-32|Error -3) .*\): is the file complete\?$"
    ):
        load_own(path)


def test_ragged_and_pickled_arrays_are_refused(tmp_path):
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.zeros((8, 8)), np.zeros((9, 9))]
    for key, arrays in (("images", {"images": ragged}), ("factors", {"images": RGB, "factors": ragged})):
        with pytest.raises(ValueError, match=rf"'{key}' in .* holds Python objects \(is it ragged\?\)"):
            load_own(write(tmp_path / "data.npz", **arrays))


def npy(shape, size, descr="'|u1'"):
    """An array whose header tells a shape that its `size` bytes need not have."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(size)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            npy((10**9, 64, 64), 100),
            r"'images' in .* should be uint8 \(1000000000, 64, 64\), but has 100 bytes: save it again",
        ),
        (npy((1, 8, 8), 65), "but has 65 bytes"),
        (npy((-1, -8, 8), 64), "has shape"),
        (npy("rubbish(", 64), "'images' in .* has no readable header: is the file complete"),
        (b"\x93NUMPY\x01", "'images' in .* has no readable header: is the file complete"),
        (b"not an array", "'images' in .* has no readable header: is the file complete"),
    ],
)
def test_headers_are_not_believed(tmp_path, content, message):
    with zipfile.ZipFile(tmp_path / "data.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", content)
    with pytest.raises(ValueError, match=message) as info:
        load_own(tmp_path / "data.npz")
    assert "\n" not in str(info.value)


def test_a_directory_that_tells_more_than_is_there_is_refused(tmp_path):
    """The directory of the zip claims 4 GB, and so does the array's header; the file has a few hundred bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", npy((10**6, 64, 64), 64))
    header = len(npy((10**6, 64, 64), 0))
    true, claimed = ((header + size).to_bytes(4, "little") for size in (64, 10**6 * 4096))
    assert buffer.getvalue().count(true) == 2
    (tmp_path / "data.npz").write_bytes(buffer.getvalue().replace(true, claimed))
    with pytest.raises(ValueError, match=r"unpacks \d\d bytes to 4,096,000,081, over 250 times as many"):
        load_own(tmp_path / "data.npz")


def test_an_hdf5_that_claims_more_than_memory_is_refused(tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_dataset("images", (10**12, 64, 64), np.uint8, chunks=(1, 64, 64))[0] = 1
    with pytest.raises(
        ValueError, match="unpacks 4,096 bytes to 4,096,000,000,000,000, over 250 times as many: if you"
    ):
        load_own(tmp_path / "data.h5")


@pytest.mark.parametrize(
    ("images", "white", "brightest"),
    [
        (GREY % 2, "255", 1),  # a mask of bool that was made uint8
        (GREY // 16, "255", 15),
        (GREY // 2, "255", 127),
        ((GREY / 255 / 255).astype(np.float32), "1", 1),  # divided twice
        (GREY * 0, "255", 0),
    ],
)
def test_images_far_below_white_are_read_with_a_warning(path, images, white, brightest, caplog):
    assert load_own(write(path, images=images)).images.max() == brightest
    assert caplog.messages == [
        f"'images' in {path}: {white} is read as white, but no pixel is brighter than {brightest} of 255: "
        "if a smaller value is white, scale the values up, or save masks of 0 and 1 as bool"
    ]


@pytest.mark.parametrize("images", [GREY % 2 * 128, GREY > 300, GREY % 2 / 1.0])
def test_images_near_white_are_read_without_one(path, images, caplog):
    """They are looked at before they are shrunk."""
    images[:, ::2] = 0
    load_own(write(path, images=images), image_size=8)
    assert caplog.messages == []


def test_what_a_bomb_is_advised_works(tmp_path):
    """Masks that are nearly all zero are packed a thousandfold: saved as the message says, they are read."""
    masks = np.zeros((17_000, 64, 64), bool)
    masks[5, 6, 7] = True
    np.savez_compressed(tmp_path / "masks.npz", images=masks)
    with h5py.File(tmp_path / "masks.h5", "w") as file:
        file.create_dataset("images", data=masks, compression="gzip", chunks=(1000, 64, 64))
    with pytest.raises(
        ValueError, match=r"over 250 times as many: if you trust it, save it uncompressed, with numpy\.savez"
    ):
        load_own(tmp_path / "masks.npz")
    with pytest.raises(
        ValueError, match=r"as many: .* save it uncompressed, with h5py's create_dataset without `compress"
    ):
        load_own(tmp_path / "masks.h5")
    for name in ("masks.npz", "masks.h5"):
        write(tmp_path / name, images=masks)
        assert load_own(tmp_path / name).images.nonzero().tolist() == [[5, 0, 6, 7]]


def test_names_that_are_not_utf_8_can_be_encoded(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    for suffix in (".npz", ".h5"):
        path = write(tmp_path / "data", images=RGB) if suffix == ".h5" else write(tmp_path / "data.npz", images=RGB)
        os.replace(path, tmp_path / (name + suffix))
        assert load_own(tmp_path / (name + suffix)).source == f"images of caf\\udce9{suffix} (own data)"
    factors = np.arange(2 * N).reshape(N, 2)
    for names in ([name, "b"], [b"caf\xe9", b"b"]):
        dataset = load_own(write(tmp_path / "data.npz", images=RGB, factors=factors, factor_names=names))
        assert dataset.factor_names == ("caf\\udce9", "b")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["images"], file["factors"] = RGB, factors
        file["factor_names"] = np.array([b"caf\xe9", b"b"])
    assert load_own(tmp_path / "data.h5").factor_names == ("caf\\xe9", "b")


def test_a_group_is_no_array(tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_group("images")
    with pytest.raises(ValueError, match="has no array 'images'"):
        load_own(tmp_path / "data.h5")
