import numpy as np
import pytest

from hierarchical_lvae.evaluation import calibration_error, coverage

rng = np.random.default_rng(0)


def test_right_means_are_calibrated_and_a_bias_is_measured():
    means = rng.uniform(0.1, 0.8, size=(50, 40, 40))
    seen = rng.random(means.shape) < means
    assert calibration_error(means, seen) < 0.01  # 20 bins of 4,000, each ± 0.007
    assert calibration_error(means + 0.1, seen) == pytest.approx(0.1, abs=0.005)
    # overconfidence, which is no bias on average: 0.5 ± 0.4 where 0.5 ± 0.2 is right
    steep = np.where(rng.random(means.shape) < 0.5, 0.1, 0.9)
    seen = rng.random(means.shape) < 0.5 + (steep - 0.5) / 2
    assert calibration_error(steep, seen) == pytest.approx(0.2, abs=0.01)


def test_coverage_is_the_level_where_the_spread_is_right():
    truth = rng.normal(size=4000)
    draws = rng.normal(size=(2000, 4000))
    assert coverage(draws, truth) == pytest.approx(0.9, abs=0.02)
    assert coverage(draws, truth, level=0.5) == pytest.approx(0.5, abs=0.03)
    assert coverage(draws * 0.5, truth) < 0.65


def test_the_order_of_equal_predictions_does_not_matter():
    """One prediction for all pixels, right on average: sorted pixels once looked far from calibrated."""
    seen = np.repeat([0, 1], 500)
    assert calibration_error(np.full(1_000, 0.5), seen) == 0
    means = rng.choice([0.2, 0.5, 0.7], size=3_000)
    seen = rng.random(3_000) < means
    order = rng.permutation(3_000)
    assert calibration_error(means[order], seen[order]) == pytest.approx(calibration_error(means, seen))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"predictions have shape \(2,\) and pixels \(3,\)"):
        calibration_error([0, 1], [0, 1, 1])
    with pytest.raises(ValueError, match="not finite"):
        calibration_error([0, np.nan], [0, 1])
    for draws, truth in (([[0, np.nan], [0, 1]], [0, 1]), ([[0, 1], [0, 1]], [0, np.inf])):
        with pytest.raises(ValueError, match="not finite"):
            coverage(draws, truth)
