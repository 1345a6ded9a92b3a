"""CarsNORB: which rows are whose, and what is used or reported when files are missing."""

import shutil

import numpy as np
import pytest
import torch

from hierarchical_lvae.data import carsnorb_stand_in, load_dataset
from hierarchical_lvae.runs import FitOptions, load_run
from hierarchical_lvae.training import fit


def test_the_union_has_cars_first_and_grey_as_rgb(tmp_path, make, small_sizes):
    make.write_cars(tmp_path / "cars")
    make.write_norb(tmp_path)
    union, cars, norb = (load_dataset(name, tmp_path) for name in ("carsnorb", "cars3d", "smallnorb"))
    assert union.images.shape == (192 + 32, 3, 64, 64)
    assert union.factors.shape == (224, 0)
    assert union.factor_names == union.factor_sizes == ()
    assert torch.equal(union.images[:192], cars.images)
    for channel in range(3):
        assert torch.equal(union.images[192:, channel], norb.images[:, 0])
    for part, own, start in zip(union.parts, (cars, norb), (0, 192), strict=True):
        assert (part.start, part.stop) == (start, start + len(own))
        assert part.factor_names == own.factor_names
        assert part.factor_sizes == own.factor_sizes
        np.testing.assert_array_equal(part.factors, own.factors)
    assert [part.name for part in union.parts] == ["cars3d", "smallnorb"]


@pytest.fixture
def rendered(monkeypatch):
    """Counts the renderings of the stand-in, and makes them instantaneous."""
    calls = []

    def render():
        calls.append(1)
        return torch.full(carsnorb_stand_in.LAYERS_SHAPE, 100, dtype=torch.uint8)

    monkeypatch.setattr(carsnorb_stand_in, "render_layers", render)
    return calls


def test_without_both_a_stand_in_is_rendered_with_a_warning(tmp_path, make, small_sizes, rendered, caplog):
    dataset = load_dataset("carsnorb", tmp_path)
    assert dataset.source == carsnorb_stand_in.SOURCE
    assert [part.name for part in dataset.parts] == ["cars3d", "smallnorb"]
    assert caplog.messages == [
        f"Cars3D and SmallNORB are not in {tmp_path}: using a rendered stand-in for CarsNORB, not the real images"
    ]
    load_dataset("carsnorb", tmp_path)
    assert len(rendered) == 1
    make.write_cars(tmp_path / "cars")
    make.write_norb(tmp_path)
    assert load_dataset("carsnorb", tmp_path).source == "CarsNORB (Cars3D and SmallNORB)"  # the real files win


@pytest.mark.parametrize(("there", "missing"), [("cars", "smallnorb-"), ("norb", "nips2015-analogy-data.tar.gz")])
def test_one_of_the_two_is_refused(tmp_path, make, small_sizes, rendered, there, missing):
    if there == "cars":
        make.write_cars(tmp_path / "cars")
    else:
        make.write_norb(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"^{missing}"):
        load_dataset("carsnorb", tmp_path)
    assert not rendered
    assert not list(tmp_path.glob("*.npz"))  # reported before anything is decoded


def test_a_run_keeps_the_images_that_it_was_trained_on(tmp_path, make, small_sizes, rendered):
    """Trained on the stand-in, it is read back on it even after the real files came; and never the other way round."""
    few = {"steps": 1, "batch": 2, "num_neighbours": 2, "image_size": 16, "latent_dim": 2, "neighbourhood": "noise"}
    options = FitOptions.of("quick", dataset="carsnorb", data_dir=tmp_path, **few)
    fit(options, tmp_path / "run")
    make.write_cars(tmp_path / "cars")
    assert load_run(tmp_path / "run").dataset.source == carsnorb_stand_in.SOURCE
    make.write_norb(tmp_path)
    assert load_run(tmp_path / "run").dataset.source == carsnorb_stand_in.SOURCE
    fit(options, tmp_path / "real")
    shutil.rmtree(tmp_path / "cars")
    with pytest.raises(FileNotFoundError, match=r"^nips2015"):
        load_run(tmp_path / "real")
    for path in tmp_path.glob("smallnorb*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"was trained on CarsNORB .* now holds other data .stand-in"):
        load_run(tmp_path / "real")
