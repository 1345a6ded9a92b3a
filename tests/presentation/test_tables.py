"""Tables of the paper as figures."""

from pathlib import Path

from hierarchical_lvae.experiments import Result, Row, Table
from hierarchical_lvae.presentation.tables import cells, draw, protocol
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


def scored(row, gap, remark="", **fid):
    scores = {"fid": {"distance": 3.0, "generated": 10, **fid}} if fid else {}
    return Result(row, FitOptions("digits"), Path("x"), (gap, 3.0 if fid else None), scores, remark=remark)


def test_a_remark_belongs_to_the_columns_without_a_value():
    """A seed whose distance failed still counts in the mean of its other scores."""
    row = Row("alpha-0", {}, (0.25, 5.0))
    table = Table("A table", {}, {"gap": ("mig", "mig"), "distance": ("fid", "distance")}, (row,))
    results = [scored(row, 0.5, name="FID"), scored(row, 0.75, "failed: fid: no weights")]
    assert cells(table, results)[1] == [
        "alpha-0", "2", "0.250 · 0.625 ± 0.177 (+0.375)", "5.000 · 3.000, 1 failed (-2.000)"
    ]  # fmt: skip


def test_distances_in_different_features_are_not_averaged():
    """Neither FID with another distance, nor one classifier's features with another's."""
    row = Row("alpha-0", {}, (0.25, 5.0))
    table = Table("A table", {}, {"gap": ("mig", "mig"), "distance": ("fid", "distance")}, (row,))
    fid = scored(row, 0.5, name="FID", settings={"weights": "6726825d"})
    one, other = (scored(row, 0.5, name="FD-factors", settings={"weights": weights}) for weights in ("aa", "bb"))
    assert cells(table, [one, one])[1][3] == "5.000 · 3.000 ± 0.000 FD-factors"
    assert cells(table, [fid, one])[1][3] == "5.000 · not comparable: FD-factors aa, FID 6726825d"
    assert cells(table, [one, other])[1][3] == "5.000 · not comparable: FD-factors aa, FD-factors bb"
    title = draw(table, [one, other]).axes[1].get_title()
    assert title.replace("\n", " ") == "distance (not comparable: different features)"


def test_parts_of_a_union_may_have_fewer_points_than_were_asked_for():
    row = Row("alpha-0", {}, (None,))
    settings = {"codes": "local", "train": 10_000, "test": 5_000}
    for more, bound in (({}, ""), ({"parts": {}}, "at most ")):
        result = Result(row, FitOptions("digits"), Path("x"), (None,), {"dci": {"settings": settings, **more}})
        expected = f"points: DCI of local codes, fitted on {bound}10,000 and tested on {bound}5,000"
        assert expected in protocol([result])
