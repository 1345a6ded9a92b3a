"""Patterns of parameter names, with and without an index."""

import pytest

from hierarchical_lvae.layout import ParameterLayout

LAYOUT = ParameterLayout({"0.weight": (2, 3), "0.bias": (2,), "2.weight": (1, 2), "2.bias": (1,)})


@pytest.mark.parametrize(
    ("patterns", "positions"),
    [
        (("last",), [8, 9, 10]),
        (("last[0]",), [8, 9, 10]),
        (("0.weight[1,:]",), [3, 4, 5]),
        ((" 0.weight[ : , 0 ] ",), [0, 3]),
        (("*.bias[0]",), [6, 10]),
        (("[02].bias",), [6, 7, 10]),
        (("0.w[ei]*[t]",), [0, 1, 2, 3, 4, 5]),
        (("0.bias[-1]", "0.bias[0]"), [6, 7]),
    ],
)
def test_patterns_select_entries(patterns, positions):
    assert LAYOUT.positions(*patterns).tolist() == positions


@pytest.mark.parametrize(
    "pattern",
    [
        "0.weight[0:2]",
        "0.weight[0,]",
        "0.bias[2]",
        "*.bias[1]",
        "0.bias[0,0]",
        "0.bias[9999999999999999999999]",
        "0.bias[]",
    ],
)
def test_an_index_that_does_not_fit_is_refused(pattern):
    with pytest.raises(
        ValueError, match=r"^the index of .* must be numbers or `:`, separated by commas, and lie within"
    ):
        LAYOUT.positions(pattern)


def test_each_pattern_must_match():
    with pytest.raises(ValueError, match=r"^no parameter matches 9\.bias: choose from 0\.weight, 0\.bias, 2\.weight"):
        LAYOUT.positions("0.bias", "9.bias")
