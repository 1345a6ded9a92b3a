"""CarsNORB: which rows are whose, and what is told when files are missing."""

import numpy as np
import pytest
import torch

from hierarchical_lvae.data import load_dataset


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


def test_what_is_missing_is_told_of_both(tmp_path, make, small_sizes):
    with pytest.raises(FileNotFoundError) as info:
        load_dataset("carsnorb", tmp_path)
    for text in ("data.tar.gz is not in", "training-dat.mat.gz is not in", "download cars3d", "download smallnorb"):
        assert text in str(info.value)
    make.write_cars(tmp_path / "cars")
    with pytest.raises(FileNotFoundError, match=r"^smallnorb-"):
        load_dataset("carsnorb", tmp_path)
    assert not (tmp_path / "hlvae-cars3d-64.npz").exists()  # reported before anything is decoded
