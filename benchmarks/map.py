"""What moves a factor from the code to the weights? Swap scores by α, β and the noise of the neighbours.

    python benchmarks/map.py --train RUNS       # train, score and add the cells that the table lacks
    python benchmarks/map.py --score RUN …      # score finished fits and add them
    python benchmarks/map.py --draw             # draw the figures and fill the page's tables; trains nothing

docs/map.csv, one row per run, is the only source of docs/map.png, docs/map-alpha.png and the tables of
docs/what-moves-a-factor.md. To train every cell again, name another table: `--csv mine.csv`. A cell took 13 to 22
seconds on an H100.
"""

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import torch
from map_figures import CSV, NEIGHBOURS, SETTINGS, STEPS, draw, means, read
from sklearn.ensemble import ExtraTreesClassifier

from hierarchical_lvae.analysis import encode
from hierarchical_lvae.analysis.swap import swap
from hierarchical_lvae.runs import FitOptions, load_run
from hierarchical_lvae.runs.directory import read_state
from hierarchical_lvae.training import fit

ALPHAS, BETAS, SEEDS = (0.03, 0.1, 0.3, 1.0), (0.0625, 0.25, 1.0), (1, 2)
PAIRS, POINTS, TRAINED_ON = 1000, 3000, 2200
SHARES = ("code", "weights", "ceiling", "in_code", "trees")


def score(path, run):
    """Add a run's scores to the table: the swap of 1,000 pairs, and trees that predict factors from local codes."""
    codes, factors = encode(run, POINTS)
    n, trees = TRAINED_ON, ExtraTreesClassifier(200, random_state=0)
    accuracy = [trees.fit(codes[:n], factor[:n]).score(codes[n:], factor[n:]) for factor in factors.T]
    options, on_gpu = run.options, run.options.device != "cpu"
    precision = {"high": "TF32", "medium": "TF32"}.get(options.precision if on_gpu else "", "float32")
    device = torch.cuda.get_device_name() if on_gpu else "CPU"
    add(path, {**vars(options), "device": device, "precision": precision}, swap(run, test=PAIRS), accuracy)


def load(path, device):
    """Load a finished run."""
    if (state := read_state(path)).status != "finished":
        raise SystemExit(f"{path} is {state}: finish it with hlvae fit --resume {path}")
    return load_run(path, device)


def add(path, settings, swapped, trees):
    """Append a run to the table: `swapped` as `analysis.swap` returns it, `trees` an accuracy for each factor."""
    row = {key: settings[key] for key in (*SETTINGS, "device", "precision")}
    for share in SHARES:
        for factor, value in zip(swapped["factors"], {**swapped, "trees": trees}[share], strict=True):
            row[f"{share}_{factor}"] = "" if value is None else round(value, 4)
    row |= {key: round(value, 4) for key, value in means(row).items()}
    with path.open("a+", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        if not path.stat().st_size:
            writer.writeheader()
        writer.writerow(row)


def train(path, runs, device):
    """Train and score each cell that is not in the table; a cell whose run is finished is only scored."""
    seen = {tuple(row[key] for key in SETTINGS) for row in read(path)} if path.exists() else set()
    for cell in ((n, 1, a, b, s, STEPS) for s in SEEDS for n in NEIGHBOURS for a in ALPHAS for b in BETAS):
        if cell not in seen:
            given = dict(zip(SETTINGS, cell, strict=True))
            options = replace(FitOptions.of("quick", dataset="3dshapes", **given), device=device)
            out = runs / f"m-{options.neighbourhood}-a{options.alpha}-b{options.beta}-{options.seed}"
            score(path, load(out, device) if out.exists() else fit(options, out))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, metavar="RUNS", help="Folder for the run directories of the map.")
    parser.add_argument("--score", type=Path, metavar="RUN", nargs="+", default=[], help="Finished run directories.")
    parser.add_argument("--draw", action="store_true", help="Draw the figures, and fill the tables of the page.")
    parser.add_argument("--csv", type=Path, default=CSV, help="The table.")
    parser.add_argument("--device", default="cpu", help="Where to train and score.")
    given = parser.parse_args()
    for run in given.score:
        score(given.csv, load(run, given.device))
    if given.train:
        train(given.csv, given.train, given.device)
    if given.draw:
        draw(given.csv)


if __name__ == "__main__":
    main()
