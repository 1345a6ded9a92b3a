"""The stand-in for CarsNORB: its grids, its geometry, and that each factor can be read from the pictures."""

import itertools
from math import prod

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesClassifier

from hierarchical_lvae.data import carsnorb_stand_in, load_dataset, solids
from hierarchical_lvae.data.carsnorb_stand_in import (
    CAR_SIZES,
    LAYERS_SHAPE,
    LIGHTINGS,
    SOURCE,
    TOY_SIZES,
    StandInImages,
    render_layers,
)
from hierarchical_lvae.data.layered import CHUNK
from hierarchical_lvae.data.solids import BODY, CARS, FLOOR, RED, STRETCHES, TOYS, cast, render_car, render_toy

CARS_END = prod(CAR_SIZES)


@pytest.fixture(scope="module", autouse=True)
def quick_render():
    """One ray per pixel, in half the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solids, "SUPERSAMPLING", 1)
        yield


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A data directory with the cache of the rendered layers."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def dataset(directory, quick_render):
    return load_dataset("carsnorb", directory)


def car(*states):
    """Index of a car by elevation, azimuth, body and colour."""
    return int(np.ravel_multi_index(states, CAR_SIZES))


def toy(*states):
    """Index of a toy by category, instance, elevation, azimuth and lighting."""
    return CARS_END + int(np.ravel_multi_index(states, TOY_SIZES))


def centre(mask):
    """Column and row of the mean of a mask's pixels."""
    rows, columns = mask.nonzero().float().unbind(1)
    return columns.mean(), rows.mean()


def test_it_has_the_parts_and_the_factors_of_carsnorb(dataset):
    assert dataset.images.shape == (len(dataset), 3, 64, 64) == (19_956, 3, 64, 64)
    assert dataset.source == SOURCE == "stand-in for CarsNORB (rendered, neither Cars3D nor SmallNORB)"
    assert dataset.factors.shape == (len(dataset), 0)
    cars, toys = dataset.parts
    assert (cars.name, cars.start, cars.stop) == ("cars3d", 0, CARS_END)
    assert (toys.name, toys.start, toys.stop) == ("smallnorb", CARS_END, len(dataset))
    assert cars.stop / toys.stop == pytest.approx(17_568 / 66_168, abs=0.005)
    assert (cars.factor_names, cars.factor_sizes) == (("elevation", "azimuth", "object"), (4, 24, 56))
    assert (toys.factor_names, toys.factor_sizes) == (("category", "elevation", "azimuth", "lighting"), (5, 9, 18, 6))
    for part in dataset.parts:
        states, counts = np.unique(part.factors, axis=0, return_counts=True)
        assert len(states) == prod(part.factor_sizes)
        assert set(counts) == {1 if part is cars else len(STRETCHES)}
    assert cars.factors[car(3, 7, 5, 2)].tolist() == [3, 7, 5 * 7 + 2]
    assert toys.factors[toy(4, 2, 8, 17, 1) - CARS_END].tolist() == [4, 8, 17, 1]


def test_images_do_not_depend_on_how_they_are_indexed(dataset):
    images = dataset.images
    index = torch.randint(len(images), (2, CHUNK), generator=torch.Generator().manual_seed(0))
    batch = images[index]
    assert batch.shape == (*index.shape, 3, 64, 64)
    assert batch.dtype == images.dtype == torch.uint8
    assert torch.equal(batch[1, 7], images[int(index[1, 7])])
    assert torch.equal(batch.flip(0, 1), images.to("cpu")[index.flip(0, 1)])
    assert torch.equal(images[[-1, 3]], torch.stack([images[len(images) - 1], images[3]]))
    assert torch.equal(images[5:8], images[np.arange(5, 8)])
    assert images[[]].shape == (0, 3, 64, 64)
    with pytest.raises(IndexError):
        images[len(images)]
    assert dataset.resized(32).batch(index[0]).shape == (len(index[0]), 3, 32, 32)


def test_pixels_use_the_range_and_toys_are_grey(dataset):
    pick = torch.arange(0, len(dataset), 37)
    batch, cars = dataset.images[pick], pick < CARS_END
    assert batch.min() < 30
    assert batch.max() == 255
    assert (batch[~cars] == batch[~cars][:, :1]).all()
    assert (batch[cars].float().std(1).amax((1, 2)) > 2).all()  # even a grey car has red lights or tinted windows
    border = torch.cat([batch[..., 0, :], batch[..., -1, :], batch[..., 0], batch[..., -1]], -1)
    assert (border == border[..., :1]).all()  # nothing is cut off
    assert (border[cars] == 255).all()


def test_an_image_is_the_sum_of_its_layers(dataset):
    layers = render_car("van", 35, 90).mul(255).round()
    colours = [carsnorb_stand_in.BODY_COLOURS[4], *carsnorb_stand_in.OTHER_COLOURS]
    slow = sum(layer * torch.tensor(c)[:, None, None] / 256 for layer, c in zip(layers, colours, strict=True))
    assert torch.equal(dataset.images[car(2, 6, 6, 4)], slow.round().clamp(max=255).byte())
    lamps = render_toy("lorry", 1, 26, 100).mul(255).round()
    slow = sum(layer * power / 256 for layer, power in zip(lamps, LIGHTINGS[4], strict=True))
    assert torch.equal(dataset.images[toy(3, 1, 2, 5, 4)], slow.round().clamp(max=255).byte().expand(3, -1, -1))


def test_each_value_of_each_factor_changes_the_picture(dataset):
    for index_of, sizes in ((car, CAR_SIZES), (toy, TOY_SIZES)):
        base = [size // 3 for size in sizes]
        for factor, size in enumerate(sizes):
            states = [[*base[:factor], value, *base[factor + 1 :]] for value in range(size)]
            pictures = dataset.images[[index_of(*state) for state in states]].float()
            differences = [(a - b).abs().mean() for a, b in itertools.combinations(pictures, 2)]
            assert min(differences) > 0.5, (index_of.__name__, factor)


def test_elevation_and_azimuth_act_alike_in_both_worlds():
    """From higher up, more of the tops is seen. From the front and from behind, pictures are symmetric."""
    for parts in (CARS["bus"], TOYS["lorry"]):
        tops = []
        for elevation in (5, 10, 35, 50, 74):
            normal, paint = cast(parts, elevation, 40)
            tops.append(int(((normal[2] > 0.99) & (paint != FLOOR)).sum()))
        assert (np.diff(tops) > 50).all()
        for azimuth in (90, 270):
            seen = cast(parts, 30, azimuth)[1]
            assert (seen != seen.flip(1)).float().mean() < 1e-3
    front, back, once_more = (render_car("saloon", 20, azimuth)[RED].sum().item() for azimuth in (90, 270, 630))
    assert front == 0 < back
    assert once_more == pytest.approx(back, rel=0.01)


def test_azimuth_turns_the_front_from_right_to_left():
    """The pick-up's cabin is in front of its middle: right of the body at azimuth 0, and left at 180."""
    offsets = []
    for azimuth in range(0, 181, 30):
        layers = render_car("pick-up", 20, azimuth)
        cabin, body = centre(layers[BODY + 1][:32] > 0), centre(layers[BODY] > 0)
        offsets.append(float(cabin[0] - body[0]))
    assert offsets == sorted(offsets, reverse=True)
    assert offsets[0] > 2 > -2 > offsets[-1]


@pytest.mark.parametrize("azimuth", [90, 270])
def test_lamps_circle_with_the_camera(azimuth):
    """The lamps on the left and on the right give mirror images of an animal, seen from the front or from behind."""
    left, right, *_ = render_toy("animal", 0, 30, azimuth)
    assert (left - right.flip(1)).abs().mean() < 1e-3
    assert (left - right).abs().mean() > 0.01


def test_pixels_are_means_over_rays(monkeypatch):
    coarse = render_car("bus", 20, 45)
    monkeypatch.setattr(solids, "SUPERSAMPLING", 2)
    fine = render_car("bus", 20, 45)
    assert coarse.shape == fine.shape == (4, 64, 64)
    assert 0 < (coarse - fine).abs().mean() < 0.02


def test_rendering_is_deterministic(dataset, directory, double):
    """It does not follow the default precision, either."""
    layers = dataset.images[car(1, 2, 0, 0)], dataset.images[toy(0, 0, 0, 0, 5)]
    assert render_car("saloon", 20, 30).dtype == render_toy("animal", 0, 10, 0).dtype == torch.float32
    again = load_dataset("carsnorb", directory)
    assert again.fingerprint == dataset.fingerprint
    assert torch.equal(again.images[car(1, 2, 0, 0)], layers[0])
    fresh = [render_toy("animal", 0, 10, 0) for _ in range(2)]
    assert torch.equal(*fresh)


def test_the_cache_is_small_and_replaced_when_damaged(tmp_path, monkeypatch, dataset, directory, caplog):
    (cached,) = directory.iterdir()
    assert cached.name == f"hlvae-carsnorb-stand-in-{carsnorb_stand_in.RENDERER_VERSION}.npz"
    assert cached.stat().st_size < 10_000_000
    layers = dataset.images._layers
    assert layers.shape == LAYERS_SHAPE
    assert layers.numel() < 60_000_000
    monkeypatch.setattr(carsnorb_stand_in, "render_layers", lambda: torch.zeros_like(layers))
    (tmp_path / cached.name).write_bytes(cached.read_bytes()[:1000])
    assert carsnorb_stand_in.load_stand_in(tmp_path).images[7].max() == 0
    assert "ignoring the unreadable cache" in caplog.text
    assert isinstance(carsnorb_stand_in.load_stand_in(tmp_path).images, StandInImages)


def test_render_layers_orders_cars_before_toys(monkeypatch):
    calls = []
    blank = torch.zeros(LAYERS_SHAPE[1:])
    monkeypatch.setattr(carsnorb_stand_in, "render_car", lambda *states: calls.append(states) or blank)
    monkeypatch.setattr(carsnorb_stand_in, "render_toy", lambda *states: calls.append(states) or blank)
    assert render_layers().shape == LAYERS_SHAPE
    assert calls[0] == ("saloon", 5, 0)
    assert calls[1] == ("estate", 5, 0)
    assert calls[767:769] == [("bus", 50, 345), ("animal", 0, 10, 0)]
    assert calls[-1] == ("car", 2, 74, 340)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (0, {"elevation": 0.9, "azimuth": 0.7, "object": 0.6}),
        (1, {"category": 0.9, "elevation": 0.22, "azimuth": 0.45, "lighting": 0.9}),
    ],
)
def test_trees_read_each_factor_from_small_pictures(dataset, part, expected):
    """From 16 × 16 pixels; neighbouring elevations of toys, 8° apart, are the hardest (chance is 0.11)."""
    part = dataset.parts[part]
    pick = np.random.default_rng(0).permutation(part.stop - part.start)[:2500]
    x = dataset.resized(16).batch(torch.from_numpy(part.start + pick)).flatten(1).numpy()
    for name, factor in zip(part.factor_names, part.factors[pick].T, strict=True):
        trees = ExtraTreesClassifier(60, random_state=0).fit(x[:2000], factor[:2000])
        assert trees.score(x[2000:], factor[2000:]) > expected[name], name
