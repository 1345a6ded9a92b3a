"""The map of α, β and noise: its figures can be drawn from its table, and its page says what the table says."""

import importlib.util
from pathlib import Path
from statistics import fmean

import matplotlib
import pytest
from PIL import Image

from hierarchical_lvae.data.replica import FACTOR_SIZES

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def script(name, monkeypatch=None):
    if monkeypatch:
        monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


figures = script("map_figures")
ROWS = figures.read(figures.CSV)
LONG = figures.of_long(ROWS)
HUES, GEOMETRY = figures.HUES, figures.GEOMETRY
PAGE = figures.PAGE.read_text(encoding="utf-8")


def values(rows, key):
    return [row[key] for row in rows]


def of_map(**cell):
    return figures.of_map(ROWS, **cell)


def short(numbers):
    return [round(number, 2) for number in numbers]


def span(numbers):
    return f"{min(numbers):.2f}–{max(numbers):.2f}"


def test_means_follow_from_the_shares():
    for row in ROWS:
        assert {key: row[key] for key in figures.means(row)} == pytest.approx(figures.means(row), abs=2e-4)


def test_scores_follow_from_the_shares():
    for row in ROWS:
        for factor, size in zip((*HUES, *GEOMETRY), FACTOR_SIZES, strict=True):
            p, w = row[f"code_{factor}"], row[f"weights_{factor}"]
            q = (1 - p - w) / (size - 2)
            a = min(max((p - q) / (p + w - 2 * q), 0), 1)
            assert row[f"in_code_{factor}"] == pytest.approx(a, abs=2e-3)


def test_no_run_is_there_twice():
    runs = [tuple(row[key] for key in (*figures.SETTINGS, "device")) for row in ROWS]
    assert len(set(runs)) == len(runs)


def test_the_tables_of_the_page_are_those_of_the_csv():
    assert figures.filled(PAGE, ROWS) == PAGE


@pytest.mark.parametrize("name", ["map.png", "map-alpha.png"])
def test_the_figures_of_the_page_were_drawn_from_this_csv(name):
    with Image.open(figures.DOCS / name) as image:
        assert image.text["Source"] == figures.digest(figures.CSV)


def test_figures_can_be_drawn(tmp_path):
    rows = [row for row in ROWS if row["neighbourhood"] == "noise-mean" or row["seed"] == 1]  # cells of one seed
    rows[0] = rows[0] | {"in_code_scale": float("nan")}
    for draw in (figures.draw_map, figures.draw_alpha):
        figure = draw(rows)
        figure.savefig(tmp_path / "figure.png", dpi=20)
        plt.close(figure)
        if draw is figures.draw_map:
            texts = [text.get_text() for axis in figure.axes for text in axis.texts]
            assert len(texts) == 3 * len(figures.of_map(rows))
            assert texts.count("–") == 1


def test_rows_can_be_added(tmp_path, monkeypatch):
    benchmark, path = script("map", monkeypatch), tmp_path / "map.csv"
    shares = {share: [0.5] * 6 for share in ("code", "weights", "ceiling", "in_code")}
    swapped = {"factors": [*HUES, *GEOMETRY], **shares, "error": [0.1] * 6, "without_colour": {}}
    swapped["in_code"] = [None, *swapped["in_code"][1:]]
    settings = dict.fromkeys(figures.SETTINGS, 1.0) | {
        "neighbourhood": "noise",
        "device": "CPU",
        "precision": "float32",
    }
    for seed in (1, 2):
        benchmark.add(path, settings | {"seed": seed}, swapped, [0.25] * 6)
    first, second = figures.read(path)
    assert list(first) == list(ROWS[0])
    assert first["in_code_floor_hue"] != first["in_code_floor_hue"]
    assert (first["geometry_with_code"], first["trees_geometry"], second["seed"]) == (1.0, 0.25, 2.0)


def test_cells_that_the_table_lacks_are_trained(tmp_path, monkeypatch):
    benchmark, trained = script("map", monkeypatch), []
    monkeypatch.setattr(benchmark, "fit", lambda options, out: options)
    monkeypatch.setattr(benchmark, "score", lambda path, run: trained.append((run.alpha, run.beta, run.seed)))
    lines = figures.CSV.read_text().splitlines(keepends=True)
    wanted = [k for k, row in enumerate(ROWS) if row["steps"] == 2500 and row["neighbourhood"] == "noise-mean"]
    path = tmp_path / "map.csv"
    path.write_text("".join([lines[0], *(lines[k + 1] for k in wanted[1:])]))
    benchmark.train(path, tmp_path, "cpu")
    assert trained[0] == (0.03, 0.0625, 1)
    assert len(trained) == 1 + 4 * 3 * 2


# What the page says in words. Where a new row makes one of these fail, change the page.


def test_colours():
    low = [fmean(row[f"in_code_{hue}"] for hue in HUES) > 0.5 for row in of_map(alpha=0.03)]
    assert (sum(low), len(low)) == (8, 12)
    assert all(row[f"in_code_{hue}"] < 0.01 for row in of_map() if row["alpha"] >= 0.1 for hue in HUES)
    scores = [
        fmean(row[f"in_code_{hue}"] for hue in HUES) for row in of_map(alpha=0.03, neighbourhood="noise", beta=1.0)
    ]
    assert short(scores) == [0.01, 0.79]
    for beta, where in ((0.0625, 0.0), (0.25, 1.0)):
        for row in of_map(alpha=0.03, neighbourhood="noise", beta=beta):
            assert abs(fmean(row[f"in_code_{hue}"] for hue in HUES) - where) < 0.05


def test_geometry_by_alpha():
    mean_1, mean_03 = (of_map(alpha=alpha, neighbourhood="noise-mean") for alpha in (1.0, 0.3))
    assert span(values(mean_1, "geometry_with_code")) == "0.16–0.55"
    assert span(values(mean_03, "geometry_with_code")) == "0.62–0.81"
    assert sum(shape < 0.22 for shape in values(mean_1, "in_code_shape")) == 4
    assert len(mean_1) == 6
    assert short(fmean(values(mean_1, f"geometry_with_{of}")) for of in ("code", "weights")) == [0.37, 0.35]
    lost = [row for row in of_map(alpha=0.1) if row["in_code_shape"] < 0.5]
    assert sorted(short(values(lost, "in_code_shape"))) == [0.14, 0.26, 0.36]
    assert set(values(lost, "seed")) == {2.0}
    assert sorted(short(values(of_map(alpha=0.3), "in_code_shape")))[:2] == [0.51, 0.8]


def test_beta():
    large = [row for row in of_map() if row["alpha"] >= 0.1]
    by_cell, by_alpha = {}, {}
    for row in large:
        by_cell.setdefault((row["neighbourhood"], row["alpha"], row["beta"]), []).append(row["geometry_with_code"])
    between_seeds = max(max(cell) - min(cell) for cell in by_cell.values())
    for (*place, _), cell in by_cell.items():
        by_alpha.setdefault(tuple(place), []).append(fmean(cell))
    between_betas = max(max(means) - min(means) for means in by_alpha.values())
    assert short([between_betas, between_seeds]) == [0.31, 0.41]
    mean = [row for row in large if row["neighbourhood"] == "noise-mean"]
    ceilings = [
        fmean(row["ceiling_orientation"] for row in mean if row["beta"] == beta) for beta in (0.0625, 0.25, 1.0)
    ]
    assert short(ceilings) == [0.76, 0.76, 0.61]


def test_noise():
    kinds, betas = ("noise", "noise-mean"), (0.0625, 0.25, 1.0)
    found = {
        (kind, alpha, beta, seed): of_map(neighbourhood=kind, alpha=alpha, beta=beta, seed=seed)[0][
            "geometry_with_code"
        ]
        for kind in kinds
        for alpha in (0.1, 0.3, 1.0)
        for beta in betas
        for seed in (1.0, 2.0)
    }
    at_1 = {
        (kind, seed): short(found[kind, 1.0, beta, seed] for beta in betas) for kind in kinds for seed in (1.0, 2.0)
    }
    assert (at_1["noise", 1.0], at_1["noise-mean", 1.0]) == ([0.61, 0.83, 0.37], [0.53, 0.30, 0.31])
    assert (at_1["noise", 2.0], at_1["noise-mean", 2.0]) == ([0.31, 0.70, 0.71], [0.16, 0.55, 0.37])
    more = [
        found["noise", *rest] > value for (kind, *rest), value in found.items() if kind == "noise-mean" and rest[0] < 1
    ]
    assert (sum(more), len(more)) == (9, 12)
    for beta in (0.0625, 1.0):
        noise, mean = (of_map(alpha=0.03, beta=beta, neighbourhood=kind) for kind in ("noise", "noise-mean"))
        pairs = zip(values(noise, "colours_with_weights"), values(mean, "colours_with_weights"), strict=True)
        assert all(one > other for one, other in pairs)


def test_trees_and_swap():
    said = {
        0.01: ("0.77–0.99", "0.41–0.46"),
        0.2: ("0.74–0.86", "0.86–0.92"),
        1.0: ("0.29–0.45", "0.87–0.94"),
        10.0: ("0.11–0.26", "0.77–0.91"),
    }
    for alpha, spans in said.items():
        assert (span(values(LONG[alpha], "geometry_with_code")), span(values(LONG[alpha], "trees_geometry"))) == spans
        assert all(text in PAGE for text in spans)
    assert span(values(LONG[1.0], "trees_colour")) == "0.21–0.26"
    assert [span(values(LONG[1.0], f"in_code_{factor}")) for factor in ("scale", "orientation")] == [
        "0.98–1.00",
        "0.65–0.92",
    ]
    assert sorted(short(values(LONG[1.0], "in_code_shape"))) == [0.18, 0.36, 0.36, 0.38, 0.7]
    assert max(short(values(LONG[10.0], "in_code_shape") + values(LONG[10.0], "in_code_orientation"))) == 0.4
    assert sorted(short(values(LONG[10.0], "in_code_scale")))[:2] == [0.01, 0.1]
    assert min(values(LONG[10.0], "geometry_with_weights")) > max(values(LONG[10.0], "geometry_with_code"))
    twice = {row["device"]: round(row["in_code_shape"], 2) for row in LONG[0.1] if row["seed"] == 4}
    assert twice == {"H100": 1.0, "CPU": 0.78}
    assert [row["seed"] for row in LONG[0.1] if row["in_code_object_hue"] > 0.5] == [3.0]
