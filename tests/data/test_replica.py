import math

import numpy as np
import pytest
import torch

from hierarchical_lvae.data import raycast, replica
from hierarchical_lvae.data.layered import CHUNK
from hierarchical_lvae.data.replica import FACTOR_SIZES, GEOMETRIES, HUE_COLOURS, SKY_COLOUR, ReplicaImages

BASES = (48000, 4800, 480, 60, 15, 1)


def index_of(*factors):
    return sum(f * b for f, b in zip(factors, BASES, strict=True))


@pytest.fixture(scope="session")
def layers():
    return replica.render_layers(supersampling=1)


@pytest.fixture(scope="session")
def images(layers):
    return ReplicaImages(layers)


@pytest.fixture
def quick_render(monkeypatch, layers):
    """Counts the renderings of all layers and makes them instantaneous."""
    calls = []

    def render():
        calls.append(1)
        return layers.clone()

    monkeypatch.setattr(replica, "render_layers", render)
    return calls


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_rendering_does_not_follow_the_default_precision(layers, images, double_precision):
    """In float64 some layers differ by a level, and so do images."""
    geometry = 3 * 60 + 1 * 15 + 7
    layer = raycast.render_geometry(3, 1, 7, supersampling=1)
    assert layer.dtype == torch.float32
    assert torch.equal(layer.mul(replica.LEVELS).round().short(), layers[geometry])
    index = torch.arange(geometry, 480_000, 50_000)
    assert torch.equal(ReplicaImages(layers)[index], images[index])


def test_shape_and_type(images):
    assert len(images) == math.prod(FACTOR_SIZES) == 480_000
    assert images.shape == (480_000, 3, 64, 64)
    assert images.dtype == torch.uint8 == images[0].dtype
    assert images.device == torch.device("cpu") == images.to("cpu").device
    assert torch.equal(images.to("cpu")[[5, 77_777]], images[[5, 77_777]])


@pytest.mark.parametrize(("factor", "row", "column"), [(0, 63, 0), (1, 24, 63), (2, 47, 31)])
def test_hues_colour_their_surface_only(images, factor, row, column):
    """Floor in the bottom corner, wall at the right, object in the centre; channels keep the hue's proportions."""
    others = [probe for probe in [(63, 0), (24, 63), (47, 31)] if probe != (row, column)]
    base = [2, 5, 8, 4, 0, 7]
    batch = images[[index_of(*base[:factor], hue, *base[factor + 1 :]) for hue in range(10)]]
    for hue, pixel in enumerate(batch[:, :, row, column].float()):
        colour = torch.tensor(HUE_COLOURS[hue]).float()
        brightness = pixel[colour == colour[colour > 0].min()].mean() / colour[colour > 0].min()
        assert 0.2 < brightness < 1.5
        torch.testing.assert_close(pixel, (brightness * colour).clamp(max=255), atol=6, rtol=0)
    for r, c in others:
        assert (batch[:, :, r, c] == batch[0, :, r, c]).all()


def test_orientation_is_the_fastest_factor(images):
    """The left wall comes into view for the last orientations, the right one for the first: both are darker."""
    walls = images[torch.arange(15) + index_of(0, 5, 0, 0, 0, 0)][:, 1, 30].float()
    assert walls[0, 63] < 0.8 * walls[7, 63]
    assert walls[14, 0] < 0.9 * walls[7, 0]
    assert len(walls.unique(dim=0)) == 15


def test_sky(images):
    assert images[123_456][:, 0, 30].tolist() == SKY_COLOUR


def test_every_index_kind(images):
    index = torch.tensor([[0, 479_999, 31_337], [-1, -480_000, 250_000]])
    batch = images[index]
    assert batch.shape == (2, 3, 3, 64, 64)
    assert torch.equal(batch[0, 1], batch[1, 0])
    assert torch.equal(batch[0, 0], batch[1, 1])
    assert torch.equal(batch, images[index.numpy()])
    assert torch.equal(batch, images[index.tolist()])
    assert torch.equal(batch[0, 2], images[31_337])
    assert torch.equal(batch[0, 2], images[np.int64(31_337)])
    assert torch.equal(images[10:40:7], images[[10, 17, 24, 31, 38]])
    assert torch.equal(images[-3:], images[[479_997, 479_998, 479_999]])
    assert torch.equal(images[5:2:-1], images[np.arange(3, 6)[::-1]])
    for empty in ([], slice(7, 3), torch.zeros(0, 2, dtype=torch.long)):
        assert images[empty].numel() == 0
    assert images[torch.zeros(0, 2, dtype=torch.long)].shape == (0, 2, 3, 64, 64)


@pytest.mark.parametrize("index", [480_000, -480_001, [0, 480_000], [0.0, 1.0], [True, False]])
def test_bad_indices(images, index):
    with pytest.raises(IndexError):
        images[index]


def test_images_do_not_depend_on_their_batch(images):
    index = torch.randint(480_000, (2 * CHUNK + 7,), generator=torch.Generator().manual_seed(0))
    batch = images[index]
    assert torch.equal(batch.flip(0), images[index.flip(0)])
    for position in (0, 1, CHUNK, len(index) - 1):
        assert torch.equal(batch[position], images[int(index[position])])


def test_composite_is_the_sum_over_paints(images, layers):
    for index in (0, 54_321, 240_007, 479_999):
        factors = np.unravel_index(index, FACTOR_SIZES)
        colours = [*(HUE_COLOURS[hue] for hue in factors[:3]), SKY_COLOUR]
        geometry = layers[index % GEOMETRIES].double() / replica.LEVELS
        slow = torch.zeros(3, 64, 64, dtype=torch.float64)
        for layer, colour in zip(geometry, colours, strict=True):
            for channel in range(3):
                slow[channel] += layer * colour[channel]
        assert torch.equal(images[index].double(), slow.clamp(max=255).round())


def test_layers_are_brightnesses(layers):
    assert layers.shape == replica.LAYERS_SHAPE
    assert layers.min() == 0
    assert layers.max() < 2 * replica.LEVELS  # eleven bits: exact in TF32 too
    total = layers.sum(1)
    assert total.min() > 0.2 * replica.LEVELS  # no hole in the scene
    assert ((layers > 0).sum(1) <= 2).all()  # one ray a pixel: one paint, or the object and the sky in it


def test_supersampling_averages_rays():
    coarse, fine = (raycast.render_geometry(3, 1, 11, supersampling=s) for s in (1, 3))
    assert coarse.shape == fine.shape == (4, 64, 64)
    assert (coarse - fine).abs().mean() < 0.02
    assert ((fine > 0).sum(0) > 2).any()


@pytest.mark.parametrize("shape", range(4))
def test_objects_grow_with_scale(layers, shape):
    covered = (layers.unflatten(0, FACTOR_SIZES[3:])[:, shape, :, raycast.OBJECT] > 0).sum((-1, -2))
    assert (covered.diff(dim=0) > 0).all()


@pytest.mark.parametrize("shape", range(4))
def test_object_is_where_the_geometry_says(shape):
    """Points where rays meet a solid lie on its surface: a step in they are inside, with outward normals."""
    scene, name = raycast.SCENE, raycast.SHAPES[shape]
    camera, direction = raycast.camera_rays(scene.angle(12), 64)
    distance = raycast.hit_solid(camera, direction, name, 1.0)
    hit = distance.isfinite()
    point = camera + distance.where(hit, 0.0) * direction
    normal = raycast.solid_normal(point, name, 1.0)[:, hit]
    torch.testing.assert_close(normal.norm(dim=0), torch.ones(int(hit.sum())))
    assert ((normal * direction[:, hit]).sum(0) < 1e-3).all()
    x, y, z = point[:, hit]
    assert z.min() > -1e-4
    if name == "cube":
        assert torch.stack([x.abs(), y.abs()]).max() < scene.cube_side / 2 + 1e-4
    elif name == "cylinder":
        assert torch.hypot(x, y).max() < scene.cylinder_radius + 1e-4
    elif name == "sphere":
        radius = torch.sqrt(x**2 + y**2 + (z - scene.sphere_radius) ** 2)
        torch.testing.assert_close(radius, torch.full_like(radius, scene.sphere_radius))
    else:
        assert z.max() < scene.capsule_height + 1e-4
        assert torch.hypot(x, y).max() < scene.capsule_radius + 1e-4


def test_shadow_lies_to_the_right_of_a_tall_object(layers):
    floor = layers[index_of(0, 0, 0, 7, 3, 7), raycast.FLOOR].float() / replica.LEVELS
    row = floor[58]
    assert row[38:44].min() < 0.4 < 0.8 < row[20:26].min()


def test_cache_round_trip(tmp_path, quick_render, images):
    first = replica.load_replica(tmp_path / "deep" / "cache")
    second = replica.load_replica(tmp_path / "deep" / "cache")
    assert len(quick_render) == 1
    index = torch.arange(0, 480_000, 9_999)
    assert torch.equal(first[index], second[index])
    assert torch.equal(first[index], images[index])
    files = list((tmp_path / "deep" / "cache").iterdir())
    assert len(files) == 1
    assert replica.RENDERER_VERSION in files[0].name


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "garbage", "misshapen", "mistyped"])
def test_damaged_cache_is_rendered_anew(tmp_path, quick_render, images, layers, damage):
    replica.load_replica(tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    half = len(content) // 2
    match damage:
        case "truncated":
            path.write_bytes(content[:half])
        case "flipped":
            path.write_bytes(content[:half] + bytes(255 - b for b in content[half : half + 64]) + content[half + 64 :])
        case "empty":
            path.write_bytes(b"")
        case "garbage":
            path.write_bytes(b"not a cache")
        case "misshapen":
            np.savez(path, layers=layers[:7].numpy())
        case "mistyped":
            np.savez(path, layers=layers.float().numpy())
    assert torch.equal(replica.load_replica(tmp_path)[1234], images[1234])
    assert len(quick_render) == 2
    replica.load_replica(tmp_path)
    assert len(quick_render) == 2


def test_unwritable_cache_is_not_fatal(tmp_path, quick_render, images, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("a file, not a directory")
    assert torch.equal(replica.load_replica(blocked / "cache")[99], images[99])
    assert "nothing is cached" in caplog.text
    assert blocked.read_text() == "a file, not a directory"


def test_no_cache(quick_render, images):
    assert torch.equal(replica.load_replica(None)[99], images[99])
    assert len(quick_render) == 1
