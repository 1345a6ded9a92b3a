"""Tables of the paper as figures."""

from pathlib import Path

from hierarchical_lvae.experiments import Result, Row, Table
from hierarchical_lvae.presentation.tables import draw
from hierarchical_lvae.runs import FitOptions


def values(ax, label):
    """What is drawn under a label, row by row."""
    return [list(line.get_xdata()) for line in ax.lines if line.get_label() == label]


def test_a_plot_shows_every_seed_and_only_what_compares():
    """The paper's FID is not drawn beside another distance, in rows without runs neither."""
    rows = (Row("alpha-0", {}, (0.25, 5.0)), Row("beta-2", {}, (0.1, 6.0)))
    table = Table("A table", {}, {"gap": ("mig", "mig"), "distance": ("fid", "distance")}, rows)
    options, scores = FitOptions("digits"), {"fid": {"name": "FD-factors", "distance": 3.0, "generated": 10}}
    found = [(0.5, 3.0), (0.75, None)]
    gap, distance = draw(table, [Result(rows[0], options, Path("x"), pair, scores) for pair in found]).axes
    assert values(gap, "a seed") == [[0.5, 0.75], []]
    assert values(gap, "their mean") == [[0.625]]
    assert values(gap, "the paper") == [[0.25], [0.1]]
    assert values(distance, "a seed") == [[3.0], []]
    assert values(distance, "the paper") == []
    assert [tick.get_text() for tick in gap.get_yticklabels()] == ["α = 0", "β = 2"]
