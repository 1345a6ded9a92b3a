"""Cars3D: from a folder and from the archive, the numbering, the cache, and how wrong files are refused."""

import io
import os
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from hierarchical_lvae.data import cars3d, load_dataset

NAMES = ("car_001_mesh", "car_002_mesh")


def pack(path, members):
    """A `.tar.gz` of (name, content) or of whole TarInfos."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def cars(make, numbers=(1, 2)):
    return [(f"data/cars/car_{n:03}_mesh.mat", make.mat_bytes(compress=True, im=make.car_views(n))) for n in numbers]


def colour(dataset, elevation, azimuth, car, num_objects=2):
    """The one colour of an image."""
    image = dataset.images[elevation * 24 * num_objects + azimuth * num_objects + car]
    assert (image == image[:, :1, :1]).all()
    return image[:, 0, 0].tolist()


@pytest.mark.parametrize("place", ["cars", "data/cars"])
@pytest.mark.parametrize("compress", [False, True])
def test_files_of_a_folder_are_a_grid_with_the_object_fastest(tmp_path, make, place, compress):
    make.write_cars(tmp_path / place, compress=compress)
    (tmp_path / place / "._car_001_mesh.mat").write_bytes(b"of another system")
    dataset = cars3d.load(tmp_path, 2)
    assert dataset.images.shape == (4 * 24 * 2, 3, 64, 64)
    assert dataset.factor_names == ("elevation", "azimuth", "object")
    assert dataset.factor_sizes == (4, 24, 2)
    for elevation, azimuth, car in [(0, 0, 0), (0, 0, 1), (0, 23, 0), (3, 5, 1)]:
        assert colour(dataset, elevation, azimuth, car) == [11 + car, 10 * azimuth, 60 * elevation]
        assert dataset.factors[elevation * 48 + azimuth * 2 + car].tolist() == [elevation, azimuth, car]


def test_views_are_resized_by_the_lanczos_filter(make):
    views = np.random.default_rng(0).integers(0, 256, (128, 128, 3, 24, 4), np.uint8)
    small = cars3d.read_views(make.mat_bytes(im=views), "a car")
    expected = Image.fromarray(np.ascontiguousarray(views[:, :, :, 7, 2])).resize((64, 64), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(small[2, 7].transpose(1, 2, 0), np.asarray(expected))


def test_another_writer_is_read_alike(make):
    buffer = io.BytesIO()
    savemat(buffer, {"mask": np.ones((2, 2)), "im": make.car_views(5)}, do_compression=True)
    by_hand = cars3d.read_views(make.mat_bytes(im=make.car_views(5)), "a car")
    np.testing.assert_array_equal(cars3d.read_views(buffer.getvalue(), "a car"), by_hand)


def test_the_archive_is_read_without_unpacking(tmp_path, make):
    others = [("data/shapes48.mat", b"x"), ("data/sprites/sprite.mat", b"x"), ("data/cars/._car_001_mesh.mat", b"x")]
    members = [*reversed(cars(make)), *others, ("data/cars/list.txt", b"")]
    pack(tmp_path / cars3d.ARCHIVE, members)
    dataset = cars3d.load(tmp_path, 2)
    assert [colour(dataset, 1, 2, car) for car in (0, 1)] == [[11, 20, 60], [12, 20, 60]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hlvae-cars3d-64.npz", cars3d.ARCHIVE]


@pytest.mark.parametrize("archive", [False, True])
def test_objects_are_numbered_by_the_list(tmp_path, make, archive):
    listed = f"{NAMES[1]}\n{NAMES[0]}\n".encode()
    if archive:
        pack(tmp_path / cars3d.ARCHIVE, [*cars(make), ("data/cars/list.txt", listed)])
    else:
        make.write_cars(tmp_path / "cars")
        (tmp_path / "cars/list.txt").write_bytes(listed)
    dataset = cars3d.load(tmp_path, 2)
    assert [colour(dataset, 0, 0, car)[0] for car in (0, 1)] == [12, 11]


def test_a_list_of_others_is_not_followed(tmp_path, make, caplog):
    make.write_cars(tmp_path / "cars")
    (tmp_path / "cars/list.txt").write_text(f"{NAMES[1]}\ncar_003_mesh\n")
    dataset = cars3d.load(tmp_path, 2)
    assert [colour(dataset, 0, 0, car)[0] for car in (0, 1)] == [11, 12]
    assert "sorting them by name" in caplog.text


def test_there_must_be_183(tmp_path, make):
    make.write_cars(tmp_path / "cars")
    with pytest.raises(ValueError, match=r"cars holds 2 \.mat files, not 183: unpack or download the archive again$"):
        load_dataset("cars3d", tmp_path)
    with pytest.raises(ValueError, match=r"holds 2 \.mat files, not 1:"):
        cars3d.load(tmp_path, 1)
    assert not (tmp_path / "hlvae-cars3d-64.npz").exists()


def matlab_73():
    """The first bytes of a file that is HDF5 inside."""
    return b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" + b"\0" * 64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda make: make.mat_bytes(mask=np.ones((2, 2), np.uint8)), "has no 'im'"),
        (
            lambda make: make.mat_bytes(im=np.zeros((128, 128, 3, 24, 2), np.uint8)),
            r"'im' in .* is uint8 \(128, 128",
        ),
        (lambda make: make.mat_bytes(im=np.zeros((128, 128, 3, 24, 4), np.int8)), r"'im' in .* is int8 .*, not uint8"),
        (lambda make: make.mat_bytes(im=make.car_views(1))[:100_000], "cannot be read as a MATLAB file"),
        (lambda make: make.mat_bytes(True, im=make.car_views(1))[:-5000], "cannot be read as a MATLAB file"),
        (lambda make: b"not a MATLAB file" * 100, "cannot be read as a MATLAB file"),
        (lambda make: b"", "cannot be read as a MATLAB file"),
        (lambda make: matlab_73(), "cannot be read as a MATLAB file"),
        (lambda make: bytes(2**25 + 1), "has 33,554,433 bytes, more than 33,554,432"),
    ],
)
@pytest.mark.parametrize("archive", [False, True])
def test_a_wrong_file_is_refused_by_name(tmp_path, make, content, message, archive):
    if archive:
        pack(tmp_path / cars3d.ARCHIVE, [*cars(make, [1]), ("data/cars/car_002_mesh.mat", content(make))])
    else:
        make.write_cars(tmp_path / "cars", [1])
        (tmp_path / "cars/car_002_mesh.mat").write_bytes(content(make))
    with pytest.raises(ValueError, match=message) as info:
        cars3d.load(tmp_path, 2)
    assert "car_002_mesh.mat" in str(info.value)
    assert "\n" not in str(info.value)


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("member", "fault"),
    [
        (("../evil.mat", b"evil"), "points outside its folder"),
        (("data/cars/../../../evil.mat", b"evil"), "points outside its folder"),
        (("/evil/cars/evil.mat", b"evil"), "points outside its folder"),
        (special("data/cars/evil.mat", tarfile.SYMTYPE, "../../../evil"), "is a link or a device"),
        (special("data/cars/evil.mat", tarfile.LNKTYPE, "data/cars/car_001_mesh.mat"), "is a link or a device"),
        (special("data/cars/evil.mat", tarfile.CHRTYPE), "is a link or a device"),
        (special("data/cars/evil.mat", tarfile.FIFOTYPE), "is a link or a device"),
    ],
)
def test_an_archive_that_is_a_trap_is_refused(tmp_path, make, member, fault):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    pack(data_dir / cars3d.ARCHIVE, [*cars(make), member])
    with pytest.raises(ValueError, match=rf"not the published archive \('.*evil\.mat' {fault}\): download it again$"):
        cars3d.load(data_dir, 2)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["data", f"data/{cars3d.ARCHIVE}"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "garbage", "empty"])
def test_a_broken_archive_is_refused(tmp_path, make, damage):
    path = tmp_path / cars3d.ARCHIVE
    pack(path, [*cars(make), ("data/sprites/last.mat", np.random.default_rng(0).bytes(100_000))])
    content = path.read_bytes()
    wrong = {
        "truncated": content[:-50_000],
        "flipped": content[:-6] + bytes([content[-6] ^ 1]) + content[-5:],  # in the checksum
        "garbage": b"no archive",
        "empty": b"",
    }
    path.write_bytes(wrong[damage])
    with pytest.raises(ValueError, match=r"cannot be read \(.*\): is the download complete\?$"):
        cars3d.load(tmp_path, 2)


def test_images_are_decoded_once(tmp_path, make, monkeypatch, caplog):
    make.write_cars(tmp_path / "cars")
    first = cars3d.load(tmp_path, 2)
    decode, calls = cars3d._decode, []
    monkeypatch.setattr(cars3d, "_decode", lambda *args: calls.append(1) or decode(*args))
    assert torch.equal(cars3d.load(tmp_path, 2).images, first.images)
    assert not calls
    assert not caplog.text

    car = tmp_path / "cars/car_002_mesh.mat"
    car.write_bytes(make.mat_bytes(im=make.car_views(3), masks=np.ones((16, 16, 24, 4), np.uint8)))
    os.utime(car, ns=(0, 0))
    assert colour(cars3d.load(tmp_path, 2), 0, 0, 1)[0] == 13
    assert len(calls) == 1

    cache = tmp_path / "hlvae-cars3d-64.npz"
    content = cache.read_bytes()
    for wrong in (content[:-100_000], b"", b"garbage", content.replace(b"images.npy", b"imagos.npy")):
        cache.write_bytes(wrong)
        caplog.clear()
        assert colour(cars3d.load(tmp_path, 2), 0, 0, 1)[0] == 13
        assert "ignoring the unreadable cache" in caplog.text
        assert cache.read_bytes() == content
    assert len(calls) == 5


def test_a_cache_of_another_number_of_objects_is_made_anew(tmp_path, make, caplog):
    make.write_cars(tmp_path / "cars")
    cars3d.load(tmp_path, 2)
    with np.load(tmp_path / "hlvae-cars3d-64.npz") as arrays:
        np.savez(tmp_path / "hlvae-cars3d-64.npz", key=arrays["key"], images=arrays["images"][:3])
    assert cars3d.load(tmp_path, 2).images.shape[0] == 192
    assert "it holds uint8 of shape (3, 24, 2, 3, 64, 64)" in caplog.text
