"""A folder of images: every mode and size, framing, sub-folders as a factor, and how bad files are refused."""

import errno
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from hierarchical_lvae.data import load_own
from hierarchical_lvae.data.framing import framed
from hierarchical_lvae.data.pictures import SUFFIXES, open_picture

RED, GREEN = (200, 10, 30), (20, 180, 60)


def save(path, colour=RED, size=(20, 20), **options):
    """An image of one colour; of a grey if that is a number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(path, **options)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, bits=8, rows=b"", transparent=None):
    """A grey PNG; without rows, it is right but for having no pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    if transparent is not None:
        header += chunk(b"tRNS", struct.pack(">H", transparent))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def first_pixel(folder):
    return load_own(folder).images[0, :, 0, 0].tolist()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_is_read(tmp_path, suffix):
    path = tmp_path / f"image{suffix.upper()}"
    Image.new("RGB", (30, 20), RED).save(path, format={".jpg": "JPEG", ".tif": "TIFF"}.get(suffix), quality=100)
    dataset = load_own(tmp_path)
    assert dataset.images.shape == (1, 3, 64, 64)
    np.testing.assert_allclose(first_pixel(tmp_path), RED, atol=8)


def modes():
    """An image of each mode, one colour all over, with the channels that it must come out as."""
    clear = Image.new("RGBA", (9, 9), (*RED, 0))
    half = Image.new("LA", (9, 9), (100, 51))  # a fifth of the grey before four fifths of white
    palette = Image.new("P", (9, 9), 1)
    palette.putpalette([0, 0, 0, *GREEN])
    return {
        "1": (Image.new("1", (9, 9), 1), [255]),
        "L": (Image.new("L", (9, 9), 77), [77]),
        "LA": (half, [224]),
        "I;16": (Image.fromarray(np.full((9, 9), 51400, np.uint16)), [200]),
        "RGB": (Image.new("RGB", (9, 9), RED), [*RED]),
        "RGBA": (clear, [255, 255, 255]),
        "P": (palette, [*GREEN]),
    }


@pytest.mark.parametrize("mode", modes())
def test_every_mode_is_read(tmp_path, mode):
    image, expected = modes()[mode]
    assert image.mode == mode
    image.save(tmp_path / "image.png")
    assert first_pixel(tmp_path) == expected


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (Image.new("CMYK", (9, 9), (0, 255, 255, 0)), {}, [255, 0, 0]),
        (Image.fromarray(np.full((9, 9), 0.2, np.float32)), {}, [51]),
        (Image.fromarray(np.full((9, 9), 51400, np.int32)), {}, [200]),
        (Image.fromarray(np.full((9, 9), 51400, ">u2")), {}, [200]),
        (Image.new("L", (9, 9), 10), {"save_all": True, "append_images": [Image.new("L", (9, 9), 99)]}, [10]),
    ],
)
def test_every_mode_of_tiff_is_read(tmp_path, image, options, expected):
    image.save(tmp_path / "image.tif", **options)
    assert first_pixel(tmp_path) == expected


def test_a_transparent_colour_shows_white(tmp_path):
    image = Image.new("P", (9, 9), 1)
    image.putpalette([0, 0, 0, *GREEN])
    image.save(tmp_path / "image.png", transparency=1)
    assert first_pixel(tmp_path) == [255, 255, 255]


@pytest.mark.parametrize(("bits", "dark"), [(1, 0), (2, 85), (4, 17), (8, 1), (16, 0)])
def test_a_transparent_grey_shows_white(tmp_path, bits, dark):
    """`dark` is the darkest grey but black, with 8 bits; with 1 bit it is black itself."""
    value = int(bits > 1)
    row = b"\0" + int(f"{value:0{bits}b}" * 8, 2).to_bytes(bits, "big")
    for transparent, expected in ((value, 255), (value + 1, dark)):
        (tmp_path / "image.png").write_bytes(png(8, 8, bits, row * 8, transparent))
        assert first_pixel(tmp_path) == [expected]


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (9, 9), colour) for colour in (RED, GREEN)]
    frames[0].save(tmp_path / "image.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(first_pixel(tmp_path), RED, atol=8)


def test_the_first_picture_of_a_stereo_camera_is_taken(tmp_path):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN)]
    frames[0].save(tmp_path / "image.jpg", "MPO", save_all=True, append_images=frames[1:], quality=100)
    np.testing.assert_allclose(first_pixel(tmp_path), RED, atol=8)


def test_the_orientation_of_the_camera_is_followed(tmp_path):
    pixels = np.zeros((8, 16), np.uint8)
    pixels[:, 8:] = 255  # bright at the right; turned a quarter to the right, at the bottom
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "image.png", exif=exif)
    image = open_picture(tmp_path / "image.png").image
    assert image.size == (8, 16)
    np.testing.assert_array_equal(np.asarray(image), pixels.T)


def test_grey_stays_grey_until_there_is_a_colour(tmp_path):
    save(tmp_path / "a.png", 77)
    assert load_own(tmp_path).images.shape == (1, 1, 64, 64)
    save(tmp_path / "b.png", RED)
    save(tmp_path / "c.png", 99)
    images = load_own(tmp_path, 8).images
    assert images.shape == (3, 3, 8, 8)
    assert images[:, :, 0, 0].tolist() == [[77] * 3, [*RED], [99] * 3]


def test_the_middle_is_cut_out(tmp_path):
    """Of a wide image and of a tall one, with red margins, the green middle."""
    for name, shape, middle in (("a", (10, 30, 3), np.s_[:, 10:20]), ("b", (30, 10, 3), np.s_[10:20])):
        pixels = np.full(shape, RED, np.uint8)
        pixels[middle] = GREEN
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    images = load_own(tmp_path, 16, frame="crop").images
    assert (images == torch.tensor(GREEN)[:, None, None]).all()


def test_borders_are_added_in_black(tmp_path):
    save(tmp_path / "wide.png", 200, (40, 20))
    (image,) = load_own(tmp_path, 16, frame="pad").images
    assert (image[0, 4:12] == 200).all()
    assert (image[0, :4] == 0).all()
    assert (image[0, 12:] == 0).all()


def test_a_thin_image_costs_no_memory():
    assert framed(Image.new("L", (100_000, 1), 9), 8, "pad")[0, 3].tolist() == [9] * 8


def test_images_are_sorted_by_their_paths_and_resized(tmp_path):
    rng = np.random.default_rng(0)
    names = ["b.png", "a/z.png", "a/b/c.PNG", "c.png", ".hidden.png", ".git/d.png"]
    arrays = {name: rng.integers(0, 256, (50, 50, 3), np.uint8) for name in names}
    for name, array in arrays.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    dataset = load_own(tmp_path, 32)
    assert len(dataset) == 4
    assert dataset.factors.shape == (4, 0)
    for image, name in zip(dataset.images, ["a/b/c.PNG", "a/z.png", "b.png", "c.png"], strict=True):
        expected = Image.fromarray(arrays[name]).resize((32, 32), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), np.asarray(expected))


def test_sub_folders_are_a_factor_where_they_hold_every_image(tmp_path):
    for name in ("dogs/1.png", "cats/1.png", "cats/old/2.png"):
        save(tmp_path / "pets" / name)
    dataset = load_own(tmp_path / "pets")
    assert dataset.source == "images of pets (own data)"
    assert dataset.factor_names == ("folder",)
    assert dataset.factor_sizes == (2,)
    assert dataset.factors.tolist() == [[0], [0], [1]]
    save(tmp_path / "pets/stray.png")
    assert load_own(tmp_path / "pets").factor_names == ()
    assert load_own(tmp_path / "pets/cats").factor_names == ()
    assert load_own(tmp_path).factor_names == ()  # one sub-folder tells nothing


def test_the_source_names_the_folder_alone(tmp_path, monkeypatch):
    save(tmp_path / "mine/a.png")
    monkeypatch.chdir(tmp_path / "mine")
    for path in (".", "../mine/", tmp_path / "mine"):
        assert load_own(path).source == "images of mine (own data)"


BAD = {
    "garbage": b"not an image",
    "empty": b"",
    "no pixels": png(20, 20),
    "a bomb": png(60_000, 60_000),
    "nearly a bomb": png(10_000, 10_000),
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_bad_image_is_refused_or_left_out(tmp_path, content, caplog):
    for name in ("a/1.png", "b/2.png", "c/4.png"):
        save(tmp_path / name)
    (tmp_path / "b/3.png").write_bytes(content)
    (tmp_path / "c/5.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"b/3\.png cannot be read as an image \(.+\): .* with `skip_bad`$") as info:
        load_own(tmp_path)
    assert "\n" not in str(info.value)
    dataset = load_own(tmp_path, skip_bad=True)
    assert dataset.factors.tolist() == [[0], [1], [2]]
    assert (dataset.images[:, :, 0, 0] == torch.tensor(RED)).all()
    assert f"2 of 5 images in {tmp_path} cannot be read and are skipped: b/3.png, c/5.jpg" in caplog.text


def test_a_truncated_image_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"a\.jpg cannot be read as an image \(.*truncated"):
        load_own(tmp_path)


@pytest.mark.parametrize("array", [np.float32([[0, 2]]), np.float32([[0, np.nan]]), np.int32([[0, 70_000]])])
def test_greys_out_of_range_are_refused(tmp_path, array):
    Image.fromarray(array).save(tmp_path / "a.tif")
    with pytest.raises(
        ValueError, match=r"a\.tif cannot be read as an image \(its greys range from (0|nan) to (2|70000|nan), outside"
    ):
        load_own(tmp_path)


def test_many_bad_images_are_counted_and_the_first_named(tmp_path, caplog):
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(b"bad")
    with pytest.raises(ValueError, match=r"none of the 5 images in .* can be read \(0.png, 1.png, 2.png, …\)$"):
        load_own(tmp_path, skip_bad=True)
    save(tmp_path / "good.png")
    load_own(tmp_path, skip_bad=True)
    assert "5 of 6 images" in caplog.text
    assert "0.png, 1.png, 2.png, …" in caplog.text


def tiff(pixels, bits, photometric):
    """An uncompressed grey TIFF of 12 or 16 bits: (h, w) uint16, white being 0 if `photometric` is."""
    height, width = pixels.shape
    if bits == 12:
        values = pixels.reshape(-1, 2).astype(int)
        content = b"".join(int(a << 12 | b).to_bytes(3, "big") for a, b in values)
    else:
        content = pixels.astype("<u2").tobytes()
    entries = [
        (256, width),
        (257, height),
        (258, bits),
        (259, 1),
        (262, photometric),
        (273, 8),
        (277, 1),
        (278, height),
    ]
    entries.append((279, len(content)))
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    header = b"II*\0" + struct.pack("<I", 8 + len(content))
    return header + content + struct.pack("<H", len(entries)) + directory + bytes(4)


@pytest.mark.parametrize(
    ("bits", "photometric", "white", "expected"),
    [(12, 1, 4095, 255), (16, 1, 65535, 255), (16, 0, 0, 255), (16, 0, 65535, 0)],
)
def test_greys_of_a_tiff_are_scaled_by_its_bits_and_white(tmp_path, bits, photometric, white, expected):
    """PIL gives numbers alone: as they are, white of 12 bits would be 16 of 255, and white that is zero black."""
    (tmp_path / "a.tif").write_bytes(tiff(np.full((10, 10), white, np.uint16), bits, photometric))
    assert first_pixel(tmp_path) == [expected]


def rgb16(levels):
    """A PNG of 10 × 10 pixels of one colour, of 16 bits a channel."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 10, 16, 2, 0, 0, 0))
    rows = (b"\0" + struct.pack(">3H", *levels) * 10) * 10
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


DIM = {
    "a mask": (np.uint8(np.eye(9)), "255", 1),
    "12 bits in 16": (np.full((9, 9), 4095, np.uint16), "65,535", 16),
    "15 bits in 16": (np.full((9, 9), 32767, np.uint16), "65,535", 127),
    "8 bits in 32": (np.full((9, 9), 255, np.int32), "65,535", 1),
    "floats divided twice": (np.full((9, 9), 1 / 255, np.float32), "1", 1),
}


@pytest.mark.parametrize(("pixels", "white", "brightest"), DIM.values(), ids=DIM)
def test_images_far_below_white_are_read_with_a_warning(tmp_path, pixels, white, brightest, caplog):
    """Each depth is judged by itself: another image may be bright."""
    save(tmp_path / "bright.png", 255)
    save(tmp_path / "bright.jpg", RED)
    for name in "ab":
        Image.fromarray(pixels).save(tmp_path / f"{name}.tif")
    if white == "255":
        (tmp_path / "bright.png").unlink()
        (tmp_path / "bright.jpg").unlink()
    total = len(list(tmp_path.iterdir()))
    assert load_own(tmp_path).images[0].max() <= brightest
    assert caplog.messages == [
        f"2 of {total} images in {tmp_path}: {white} is read as white, but no pixel is brighter than {brightest} of "
        "255: if a smaller value is white, scale the pixel values up"
    ]


def test_colours_of_16_bits_are_scaled_and_judged_by_them(tmp_path, caplog):
    (tmp_path / "a.png").write_bytes(rgb16((51400, 0, 65535)))
    assert first_pixel(tmp_path) == [200, 0, 255]
    assert caplog.messages == []
    (tmp_path / "a.png").write_bytes(rgb16((4095, 0, 2000)))
    assert first_pixel(tmp_path) == [15, 0, 7]
    assert "65,535 is read as white, but no pixel is brighter than 15 of 255" in caplog.text


def test_frames_that_are_left_out_are_counted(tmp_path, caplog):
    frames = [Image.new("L", (9, 9), grey) for grey in (200, 99)]
    for name in ("a.tif", "b.gif", "c.png", "d.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "e.jpg", "MPO", save_all=True, append_images=frames[1:])  # as cameras do
    load_own(tmp_path)
    assert caplog.messages == [
        f"4 of 5 images in {tmp_path} have more than one frame, and only the first is read (save each as a file): "
        "a.tif, b.gif, c.png, …"
    ]


def test_links_to_class_folders_are_followed(tmp_path, caplog):
    for i, name in enumerate(("store/cats", "store/dogs/old", "pets/birds")):
        save(tmp_path / name / "1.png", 200 + i)
    (tmp_path / "pets/dogs").symlink_to(tmp_path / "store/dogs")
    (tmp_path / "pets/cats").symlink_to("../store/cats")
    dataset = load_own(tmp_path / "pets")
    assert (dataset.factor_names, dataset.factor_sizes) == (("folder",), (3,))
    assert dataset.images[:, 0, 0, 0].tolist() == [202, 200, 201]
    assert caplog.messages == []


def test_links_that_lead_back_are_counted_and_not_followed(tmp_path, caplog):
    """Folders go before links to them: what is read keeps its own name."""
    save(tmp_path / "pets/cats/1.png", 201)
    save(tmp_path / "pets/dogs/1.png", 202)
    save(tmp_path / "other/1.png", 203)
    (tmp_path / "pets/a").symlink_to("dogs")
    (tmp_path / "pets/cats/up").symlink_to("..")
    (tmp_path / "pets/cats/top").symlink_to(tmp_path)
    (tmp_path / "pets/self").symlink_to("self")
    dataset = load_own(tmp_path / "pets")
    assert dataset.images[:, 0, 0, 0].tolist() == [201, 202]
    assert caplog.messages == [
        f"skipping links in {tmp_path / 'pets'} to folders above it or already read (3): a, cats/top, cats/up",
        f"skipping links in {tmp_path / 'pets'} whose targets are missing (1): self",
    ]


def test_links_that_lead_nowhere_are_counted(tmp_path, caplog):
    save(tmp_path / "cats/1.png", 200)
    (tmp_path / "dogs").symlink_to("moved")
    load_own(tmp_path)
    assert caplog.messages == [f"skipping links in {tmp_path} whose targets are missing (1): dogs"]


def test_a_folder_that_cannot_be_read_is_refused_or_left_out(tmp_path, monkeypatch, caplog):
    """Whatever the rights of who runs the tests."""
    for name in ("cats", "dogs", "birds"):
        save(tmp_path / name / "1.png", 200)
    scandir = os.scandir

    def refused(place):
        if str(place).endswith("dogs"):
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(
        ValueError,
        match=r"^the folder .*/dogs cannot be read \(Permission denied\): make it readable, or .* with `skip_bad`$",
    ):
        load_own(tmp_path)
    assert load_own(tmp_path, skip_bad=True).factor_sizes == (2,)
    assert caplog.messages == [f"skipping folders in {tmp_path} that cannot be read (1): dogs"]
    with pytest.raises(
        ValueError, match=r"^the folder .*/dogs cannot be read \(Permission denied\): make it readable$"
    ):
        load_own(tmp_path / "dogs", skip_bad=True)


def test_names_that_are_not_utf_8_are_read_and_can_be_encoded(tmp_path, caplog):
    root = tmp_path / os.fsdecode(b"caf\xe9")
    for name in (b"\xe9", b"\xe8", b"z"):
        save(root / os.fsdecode(name) / os.fsdecode(name + b".png"), 200)
    (root / "z/bad.png").write_bytes(b"bad")
    with pytest.raises(ValueError, match=r"caf\\udce9/z/bad\.png cannot be read as an image") as info:
        load_own(root)
    dataset = load_own(root, skip_bad=True)
    for text in (str(info.value), dataset.source, *dataset.factor_names, *caplog.messages):
        assert text.encode()
    assert dataset.source == "images of caf\\udce9 (own data)"
    assert dataset.factors.tolist() == [[0], [1], [2]]
    assert len(dataset.fingerprint) == 16


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"contains no images \(0 other files\): give files that end in \.png, "):
        load_own(tmp_path)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "data.csv").write_text("not an image")
    with pytest.raises(ValueError, match=r"contains no images \(2 other files\): give files that end in \.png, "):
        load_own(tmp_path)


def test_wrong_arguments_are_refused(tmp_path):
    save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="no frame is called 'corp': did you mean 'crop'"):
        load_own(tmp_path, frame="corp")
    with pytest.raises(ValueError, match="images of 7 pixels per side are too small: give at least 8"):
        load_own(tmp_path, image_size=7)
    with pytest.raises(ValueError, match=r"a\.png is not a folder and does not end in \.npz, \.h5, \.hdf5"):
        load_own(tmp_path / "a.png")
    with pytest.raises(
        FileNotFoundError, match=r"nowhere does not exist: give a folder of images, an \.npz or an \.h5$"
    ):
        load_own(tmp_path / "nowhere")
