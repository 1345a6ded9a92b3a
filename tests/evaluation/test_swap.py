"""The swap score, against the mixture that it estimates."""

import numpy as np
import pytest

from hierarchical_lvae.evaluation import swap_score

SIZES = np.array([2, 3, 10, 15])


def mixture(n, a, random, seed):
    """What is shown where a share `random` shows any value, and of the rest a share `a` the code's."""
    rng = np.random.default_rng(seed)
    code, weights, anything = (rng.integers(SIZES, size=(n, len(SIZES))) for _ in range(3))
    shown = np.where(rng.random(code.shape) < a, code, weights)
    return np.where(rng.random(code.shape) < random, anything, shown), code, weights


@pytest.mark.parametrize("a", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("random", [0.0, 0.4])
def test_it_estimates_the_share_that_follows_the_code(a, random):
    found = swap_score(*mixture(20_000, a, random, 0), SIZES)
    follows = np.where(SIZES > 2, a, (1 - random) * a + random / 2)  # of two values there is no third: ρ is not seen
    assert np.all(abs(found.in_code - follows) <= 4 * found.error + 1e-12)


def test_its_error_is_the_spread_over_samples():
    scores = [swap_score(*mixture(500, 0.6, 0.3, seed), SIZES) for seed in range(400)]
    spread = np.std([found.in_code for found in scores], axis=0)
    error = np.mean([found.error for found in scores], axis=0)
    assert error == pytest.approx(spread, rel=4 / np.sqrt(2 * 400))  # the relative error of a standard deviation


def test_shares_are_of_the_pairs_that_differ():
    found = swap_score([[0], [1], [2], [0]], [[0], [1], [2], [0]], [[0], [2], [2], [1]], [3])
    assert found.pairs.tolist() == [2]
    assert (found.code.tolist(), found.weights.tolist()) == ([1.0], [0.0])


def test_pictures_that_follow_neither_have_no_score():
    rng = np.random.default_rng(0)
    shown, code, weights = (rng.integers(10, size=(300, 1)) for _ in range(3))
    assert np.isnan(swap_score(shown, code, weights, [10]).in_code)
    assert np.isnan(swap_score(np.full_like(code, 99), code, weights, [10]).in_code)


def test_pairs_that_never_differ_are_refused():
    with pytest.raises(ValueError, match="no pair differs in factor 0"):
        swap_score([[0]], [[0]], [[0]], [2])


@pytest.mark.parametrize("shapes", [((3, 1), (3, 1), (2, 1)), ((3,), (3,), (3,)), ((3, 2), (3, 2), (3, 2))])
def test_shapes_that_do_not_match_are_refused(shapes):
    with pytest.raises(ValueError, match=r"\(n, F\)"):
        swap_score(*(np.zeros(shape, int) for shape in shapes), [2])
