"""Measures of disentanglement against known answers, independent calculations, and what theory says of them."""

from pkgutil import resolve_name

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import normalized_mutual_info_score

from hierarchical_lvae.evaluation import (
    METRICS,
    beta_vae_score,
    dci,
    dci_from_importance,
    factor_vae_score,
    mig,
    modularity,
    mutual_information,
    sap,
)

FEW = {"votes_train": 400, "votes_test": 200}


def draw(n, sizes=(4, 3, 5), seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(size, size=n) for size in sizes], axis=1)


def score(name, codes, factors, seed=0):
    """The headline of a metric, on codes (n, D): the first 2/3 to fit on, the rest to test on."""
    n = len(codes) * 2 // 3
    halves = codes[:n], factors[:n], codes[n:], factors[n:]
    return {
        "dci": lambda: dci(*halves, seed=seed, n_jobs=1).disentanglement,
        "mig": lambda: mig(codes, factors).mig,
        "sap": lambda: sap(*halves, seed=seed, n_jobs=1).sap,
        "factor-vae": lambda: factor_vae_score(codes, factors, seed, **FEW).score,
        "beta-vae": lambda: beta_vae_score(codes, factors, seed, 400, 200).score,
        "modularity": lambda: modularity(*halves, seed=seed).modularity,
    }[name]()


each = pytest.mark.parametrize("name", METRICS)


@pytest.mark.parametrize(
    ("importance", "disentanglement", "completeness"),
    [
        (np.eye(10), 1, 1),
        (np.vstack([np.eye(10), np.zeros((5, 10))]), 1, 1),  # dead codes
        (np.zeros((10, 10)), 0, 0),
        (np.ones((10, 10)), 0, 0),
        (np.vstack([np.eye(5), np.eye(5)]), 1, 1 - np.log(2) / np.log(10)),  # each factor in two codes
        (np.hstack([np.eye(5), np.eye(5)]), 1 - np.log(2) / np.log(10), 1),  # each code of two factors
    ],
)
def test_dci_of_known_importances(importance, disentanglement, completeness):
    found = dci_from_importance(importance)
    assert found == pytest.approx((disentanglement, completeness), abs=1e-6)
    assert dci_from_importance(3 * importance) == pytest.approx(found, abs=1e-9)


def test_a_colour_blind_but_otherwise_perfect_encoder_scores_a_half_with_colour():
    importance = np.zeros((10, 6))
    importance[:, :3] = 1 / 10  # three colours that cannot be read, spread evenly
    importance[[0, 1, 2], [3, 4, 5]] = 1  # three geometry factors, one code each
    with_colour = dci_from_importance(importance)
    assert with_colour[0] == pytest.approx(0.497, abs=5e-4)
    assert with_colour[1] == pytest.approx(0.5, abs=5e-3)
    assert dci_from_importance(importance[:, 3:]) == pytest.approx((1, 1), abs=1e-6)


def test_dci_is_an_independent_calculation_from_scikit_learn():
    rng = np.random.default_rng(1)
    factors = draw(500)
    codes = factors[:, :2] @ rng.normal(size=(2, 4)) + rng.normal(size=(500, 4))
    result = dci(codes[:300], factors[:300], codes[300:], factors[300:], seed=3)
    importance, test = np.zeros((4, 3)), []
    for k in range(3):
        model = GradientBoostingClassifier(random_state=3).fit(codes[:300], factors[:300, k])
        importance[:, k] = model.feature_importances_
        test.append((model.predict(codes[300:]) == factors[300:, k]).mean())
    np.testing.assert_allclose(result.importance, importance, rtol=0, atol=1e-12)
    assert result.informativeness_test == pytest.approx(np.mean(test), abs=1e-12)

    def entropy(p, base):
        return -sum(x * np.log(x) for x in p if x > 0) / np.log(base)

    rows, columns = importance.sum(1), importance.sum(0)
    d = sum(rows[i] / importance.sum() * (1 - entropy(importance[i] / rows[i], 3)) for i in range(4))
    c = sum(columns[k] / importance.sum() * (1 - entropy(importance[:, k] / columns[k], 4)) for k in range(3))
    assert result.disentanglement == pytest.approx(d, abs=1e-9)
    assert result.completeness == pytest.approx(c, abs=1e-9)
    again = dci(codes[:300], factors[:300], codes[300:], factors[300:], seed=3, n_jobs=1)
    np.testing.assert_array_equal(again.importance, result.importance)  # whatever the number of processes


def test_factors_are_fitted_once_and_sliced():
    rng = np.random.default_rng(1)
    factors = draw(400)
    codes = factors + 0.3 * rng.normal(size=(400, 3))
    whole = dci(codes[:300], factors[:300], codes[300:], factors[300:])
    part = whole.of_factors([1, 2])
    alone = dci(codes[:300], factors[:300, 1:], codes[300:], factors[300:, 1:])
    np.testing.assert_array_equal(part.importance, alone.importance)
    assert part[:4] == alone[:4]
    assert part.informativeness_test == pytest.approx(whole.accuracy_test[1:].mean())


@each
def test_factors_as_codes_score_the_maximum(name):
    factors = draw(1500)
    # a linear machine on one code cannot tell the middle values of a factor: SAP's maximum is not 1
    least = {"sap": 0.3, "dci": 0.999, "mig": 0.98, "modularity": 0.999}.get(name, 1.0)
    assert score(name, factors.astype(float), factors) >= least


def test_sap_of_binary_factors_as_codes_is_a_half():
    factors = draw(3000, sizes=(2, 2))
    assert score("sap", factors.astype(float), factors) == pytest.approx(0.5, abs=0.05)  # the next best guesses


@each
def test_noise_scores_the_floor(name):
    factors = draw(1500)
    codes = np.random.default_rng(5).normal(size=(1500, 4))
    most = {"dci": 0.25, "mig": 0.02, "sap": 0.06, "factor-vae": 0.48, "beta-vae": 0.48, "modularity": 1.0}[name]
    assert score(name, codes, factors) <= most
    if name == "modularity":  # what noise tells is as modular as chance has it; explicitness has a floor, of a half
        result = modularity(codes[:1000], factors[:1000], codes[1000:], factors[1000:])
        assert result.explicitness_test == pytest.approx(0.5, abs=0.06)


@each
def test_the_order_of_the_codes_does_not_matter(name):
    rng = np.random.default_rng(2)
    factors = draw(900)
    codes = factors @ rng.normal(size=(3, 5)) + 0.3 * rng.normal(size=(900, 5))
    permuted = score(name, codes[:, [3, 1, 4, 0, 2]], factors)
    tolerance = 0.02 if name in ("dci", "beta-vae") else 1e-9  # ties in trees, rounding in the regression
    assert permuted == pytest.approx(score(name, codes, factors), abs=tolerance)


@each
def test_the_scale_of_the_codes_does_not_matter_where_theory_says_so(name):
    rng = np.random.default_rng(2)
    factors = draw(900)
    codes = factors @ rng.normal(size=(3, 5)) + 0.3 * rng.normal(size=(900, 5))
    scaled = score(name, codes * [1, 2, 4, 8, 0.5], factors)
    if name in ("dci", "mig", "factor-vae", "modularity"):  # powers of two, so that no rounding differs
        assert scaled == pytest.approx(score(name, codes, factors), abs=1e-6)


def test_mutual_information_is_scikit_learns_of_the_bins():
    factors = draw(2000)
    codes = np.column_stack([factors[:, 0], np.random.default_rng(0).normal(size=2000)])
    information = mutual_information(codes, factors)
    assert information.shape == (2, 3)
    entropy = -sum(p * np.log(p) for p in np.bincount(factors[:, 0]) / 2000)
    assert information[0, 0] == pytest.approx(entropy, abs=1e-9)
    assert normalized_mutual_info_score(factors[:, 0], codes[:, 0]) == pytest.approx(1)
    assert information[1].max() < 0.06


def test_seeds_decide():
    factors = draw(600)
    codes = factors + np.random.default_rng(0).normal(size=(600, 3))
    for metric in (factor_vae_score, beta_vae_score):
        args = (codes, factors)
        first, again, other = (metric(*args, seed, 200, 100) for seed in (0, 0, 1))
        assert first == again
        assert first != other


def test_dead_codes_do_not_vote_and_none_alive_is_zero():
    factors = draw(600)
    dead = np.zeros((600, 2))
    alive = factor_vae_score(np.hstack([dead, factors]), factors, **FEW)
    assert (alive.score, alive.active) == (1.0, 3)
    assert factor_vae_score(dead, factors, **FEW) == (0.0, 0.0, 0)


@each
def test_dead_codes_and_one_code_have_defined_answers(name):
    factors = draw(600)
    rng = np.random.default_rng(0)
    for codes in (np.zeros((600, 3)), factors[:, :1] + 0.1 * rng.normal(size=(600, 1))):
        assert 0 <= score(name, codes, factors) <= 1


@each
def test_bad_input_is_refused_in_one_line(name):
    factors = draw(300)
    codes = factors.astype(float)
    broken = codes.copy()
    broken[7, 1] = np.nan
    constant = factors.copy()
    constant[:, 2] = 1
    for given, message in (
        ((broken, factors), "the codes of 1 of .* points are not finite"),
        ((codes, constant), "factor 2 has the same value at all"),
        ((codes[:, 0], factors), r"codes have shape \(.*\): \(n, D\) is needed"),
        ((codes[:-9], factors), "factors have|train and test|points"),
        ((codes, factors + 0.5), "factors are not whole numbers"),
        ((codes, np.where(factors == 1, np.nan, factors)), "factors are not whole numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            score(name, *given)


def test_sap_refuses_test_points_with_other_codes_or_factors():
    factors = draw(60)
    for codes_test, factors_test in ((factors[:, :2], factors), (factors, factors[:, :1])):
        with pytest.raises(ValueError, match="train and test have different numbers of codes or factors"):
            sap(factors, factors, codes_test, factors_test, n_jobs=1)


def test_explicitness_needs_a_value_that_is_in_both_sets():
    factors = np.arange(60)[:, None] % 30
    halves = factors[:30].astype(float), factors[:30] % 2, factors[30:].astype(float), 2 + factors[30:] % 2
    with pytest.raises(ValueError, match="no value of factor 0 in the test set occurs in the training set"):
        modularity(*halves)


def test_codes_that_differ_by_rounding_alone_can_be_binned():
    factors = draw(200)
    codes = 1 + np.spacing(1.0) * np.random.default_rng(0).integers(2, size=(200, 2))
    assert 0 <= mig(codes, factors).mig < 0.05


def test_every_metric_can_be_looked_up():
    assert all(callable(resolve_name(entry)) for entry in METRICS.values())
