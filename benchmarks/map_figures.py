"""The figures and tables of docs/what-moves-a-factor.md, from the rows of docs/map.csv (see `map.py`)."""

import csv
import hashlib
import re
from collections import Counter
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).parent.parent / "docs"
CSV, PAGE = DOCS / "map.csv", DOCS / "what-moves-a-factor.md"
SETTINGS = ("neighbourhood", "num_neighbours", "alpha", "beta", "seed", "steps")
WORDS = ("neighbourhood", "device", "precision")
NEIGHBOURS, STEPS = ("noise-mean", "noise"), 2500
LONG, BALANCE = 5000, 0.25
HUES, GEOMETRY = ("floor_hue", "wall_hue", "object_hue"), ("scale", "shape", "orientation")
LONG_COLUMNS = {
    "colours_with_weights": "colours with the weights",
    "geometry_with_code": "geometry with the code",
    "geometry_with_weights": "geometry with the weights",
    "in_code_scale": "swap score: scale",
    "in_code_shape": "shape",
    "in_code_orientation": "orientation",
    "trees_geometry": "trees: geometry",
    "trees_colour": "trees: colour",
}
CHANCE = {"geometry": (1 / 8 + 1 / 4 + 1 / 15) / 3, "colours": 0.1}


def read(path):
    """Read the rows of the table: numbers as floats, an undefined score as NaN."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: v if k in WORDS else float(v or "nan") for k, v in row.items()} for row in csv.DictReader(file)]


def mean(row, share, factors):
    """The mean of a share over factors."""
    return fmean(row[f"{share}_{factor}"] for factor in factors)


def means(row):
    """The means over colours and over geometry of a row's shares."""
    ceiling = mean(row, "ceiling", GEOMETRY)
    return {
        "colours_with_weights": mean(row, "weights", HUES),
        "geometry_with_code": mean(row, "code", GEOMETRY) / ceiling,
        "geometry_with_weights": mean(row, "weights", GEOMETRY) / ceiling,
        "trees_colour": max(row[f"trees_{hue}"] for hue in HUES),
        "trees_geometry": mean(row, "trees", GEOMETRY),
    }


def of_map(rows, **cell):
    """The rows of a cell, or of all cells with these settings, by seed."""
    found = [row for row in rows if row["steps"] == STEPS and all(row[key] == cell[key] for key in cell)]
    return sorted(found, key=lambda row: row["seed"])


def of_long(rows):
    """The longer fits, with noise-mean and the paper's balance of β to pixels: rows by α."""
    wanted = {"steps": LONG, "neighbourhood": "noise-mean", "beta": BALANCE}
    found = [row for row in rows if all(row[key] == wanted[key] for key in wanted)]
    return {alpha: [row for row in found if row["alpha"] == alpha] for alpha in sorted({r["alpha"] for r in found})}


# ---------------------------------------------------------------------------------------------------------- figures


def draw_map(rows):
    """A row of panels for each kind of neighbours; each cell is split into its runs, by seed."""
    alphas, betas = (sorted({row[key] for row in of_map(rows)}) for key in ("alpha", "beta"))
    panels = {
        "colours: swap score": ("PuOr", lambda row: mean(row, "in_code", HUES)),
        "geometry: swap score": ("PuOr", lambda row: mean(row, "in_code", GEOMETRY)),
        "geometry: pictures that follow the code": ("Greys", lambda row: row["geometry_with_code"]),
    }  # fmt: skip
    figure, axes = plt.subplots(len(NEIGHBOURS), 3, figsize=(12, 6.8), layout="constrained", sharex=True, sharey=True)
    for line, neighbourhood in zip(axes, NEIGHBOURS, strict=True):
        line[0].set_ylabel(f"neighbours: {neighbourhood}\n\nβ", fontsize=11)
        for axis, (title, (colours, value)) in zip(line, panels.items(), strict=True):
            axis.set(xlim=(-0.5, len(alphas) - 0.5), ylim=(-0.5, len(betas) - 0.5))
            for (i, alpha), (j, beta) in ((a, b) for a in enumerate(alphas) for b in enumerate(betas)):
                cell = [value(row) for row in of_map(rows, neighbourhood=neighbourhood, alpha=alpha, beta=beta)]
                for k, number in enumerate(cell):
                    tile(axis, i - 0.47 + 0.94 * k / len(cell), j, 0.94 / len(cell), number, colours)
            axis.set_title(title if neighbourhood == NEIGHBOURS[0] else "", fontsize=11)
            axis.set_xlabel("α" if neighbourhood == NEIGHBOURS[-1] else "", fontsize=11)
            axis.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
            axis.set_yticks(range(len(betas)), [f"{beta:g}" for beta in betas])
            axis.tick_params(length=0)
            axis.spines[:].set_visible(False)
    for places, name, label in (
        (axes[:, :2], "PuOr", "swap score: 0 in the weights, 1 in the code"),
        (axes[:, 2], "Greys", "share of the ceiling"),
    ):
        shown = matplotlib.cm.ScalarMappable(cmap=name)
        figure.colorbar(shown, ax=places, label=label, location="bottom", fraction=0.05, aspect=30, shrink=0.8)
    return figure


def tile(axis, left, row, width, number, colours):
    """Draw one run as a coloured tile with its value."""
    colour = "0.93" if number != number else matplotlib.colormaps[colours](number)
    ink = "white" if fmean(matplotlib.colors.to_rgb(colour)) < 0.5 else "black"
    axis.add_patch(plt.Rectangle((left, row - 0.47), width, 0.94, facecolor=colour, edgecolor="0.75", linewidth=0.4))
    text = "–" if number != number else f"{number:.2f}"
    size = 9 if width > 0.4 else 7
    axis.text(left + width / 2, row, text, ha="center", va="center", color=ink, fontsize=size)


def draw_alpha(rows):
    """By α: what swapped pictures follow, and how well trees predict factors from codes. Each marker is a run."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", sharey=True)
    series = (
        ("code", "swapped pictures that follow the code", "#5e3c99", "o"),
        ("weights", "swapped pictures that follow the weights", "#e66101", "s"),
        ("trees", "accuracy of trees that predict factors from codes", "#222222", "x"),
    )
    for axis, (name, factors) in zip(axes, {"geometry": GEOMETRY, "colours": HUES}.items(), strict=True):
        for k, (share, label, colour, marker) in enumerate(series):
            points = []
            for alpha, found in of_long(rows).items():
                for row in found:
                    whole = 1 if share == "trees" else mean(row, "ceiling", factors)
                    points.append((alpha * 10 ** (0.06 * (k - 1)), mean(row, share, factors) / whole))
            axis.scatter(*zip(*points, strict=True), s=26, c=colour, marker=marker, alpha=0.75, label=label)
        axis.axhline(CHANCE[name], color="0.6", linestyle=":", linewidth=1)
        axis.text(0.03, CHANCE[name] + 0.01, "trees: chance", color="0.4", fontsize=8, ha="center")
        axis.set(xscale="log", xlabel="α", title=name, ylim=(-0.03, 1.03))
        axis.set_xticks(list(of_long(rows)), [f"{alpha:g}" for alpha in of_long(rows)])
        axis.minorticks_off()
    axes[0].set_ylabel("share of the ceiling, or accuracy")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


# ----------------------------------------------------------------------------------------------------------- tables


def spread(values):
    """Format the mean, the minimum and the maximum."""
    values = list(values)
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{fmean(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def tables(rows):
    """The generated parts of the page in Markdown, by name."""
    betas = sorted({row["beta"] for row in of_map(rows)})
    columns = [f"geometry with the code, β = {beta:g}" for beta in betas]
    short = [["neighbours", "α", "runs", "colours with the weights", *columns]]
    for neighbourhood in NEIGHBOURS:
        for alpha in sorted({row["alpha"] for row in of_map(rows, neighbourhood=neighbourhood)}):
            found = of_map(rows, neighbourhood=neighbourhood, alpha=alpha)
            cells = [", ".join(f"{r['geometry_with_code']:.2f}" for r in found if r["beta"] == beta) for beta in betas]
            colours = spread(row["colours_with_weights"] for row in found)
            short.append([f"`{neighbourhood}`", f"{alpha:g}", str(len(found)), colours, *cells])
    long = [["α", "runs", *LONG_COLUMNS.values()]]
    for alpha, found in of_long(rows).items():
        long.append([f"{alpha:g}", counted(found), *(spread(row[key] for row in found) for key in LONG_COLUMNS)])
    return {"runs": runs(rows), "short": markdown(short), "long": markdown(long)}


def counted(rows):
    """How many runs were trained on which device, and in which precision."""
    numbers = Counter(f"{row['device']}, {row['precision']}" for row in rows)
    return "; ".join(f"{number} ({where})" for where, number in sorted(numbers.items()))


def runs(rows):
    """Sentences that give the number of runs, in all and per cell."""
    seeds = Counter((row["neighbourhood"], row["alpha"], row["beta"]) for row in of_map(rows))
    parts = []
    for number in sorted(set(seeds.values()), reverse=True):
        cells = [f"`{n}` at α = {a:g}, β = {b:g}" for (n, a, b), found in seeds.items() if found == number]
        which = f" ({'; '.join(cells)})" if len(cells) < len(seeds) / 2 else ""
        parts.append(f"{len(cells)} cell{'s' * (len(cells) > 1)} with {number} run{'s' * (number > 1)}{which}")
    return f"The map has {len(of_map(rows))} runs: {counted(of_map(rows))}. It consists of {', '.join(parts)}."


def markdown(lines):
    """Format a Markdown table; the first line is its header."""
    head, *body = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body])


def filled(page, rows):
    """The page's text, with its tables filled in from the rows."""
    for name, table in tables(rows).items():
        pattern, full = f"<!-- table {name} -->.*?<!-- end -->", f"<!-- table {name} -->\n\n{table}\n\n<!-- end -->"
        page, found = re.subn(pattern, lambda _, full=full: full, page, flags=re.DOTALL)
        assert found == 1, name
    return page


def digest(path):
    """The digest of a table; it is stored in the figures, so that a test can check whether they are current."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def draw(path):
    """Draw the figures and fill in the page's tables, from the table of runs at `path`."""
    rows, metadata = read(path), {"Source": digest(path)}
    draw_map(rows).savefig(DOCS / "map.png", dpi=110, metadata=metadata)
    draw_alpha(rows).savefig(DOCS / "map-alpha.png", dpi=110, metadata=metadata)
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
