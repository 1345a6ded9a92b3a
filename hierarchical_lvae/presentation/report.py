"""A one-page report of a run, from the files in its directory: `report.html`, which is self-contained.

Missing results are listed with the command that computes them; the report itself computes nothing. Its header states
the data, how far the fit came, and that it is one fit with one seed.
"""

import base64
import csv
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hierarchical_lvae.analysis import SCORES, model_digest, outdated, read_scores
from hierarchical_lvae.analysis.store import META
from hierarchical_lvae.files import write_text
from hierarchical_lvae.presentation.compare import COLUMNS, NOTES
from hierarchical_lvae.presentation.scores import lines
from hierarchical_lvae.presentation.titles import model
from hierarchical_lvae.runs import FitOptions
from hierarchical_lvae.runs.directory import command, count_skipped, read_log, read_options, read_record, read_state
from hierarchical_lvae.runs.pretrained import check_writable

CAPTIONS = {
    "training": "Training curves.",
    "figure3": "Figure 3: in each row a reference, and codes that all rows share, decoded with its local weights.",
    "figure2": "Figure 2: codes drawn from p(z), each decoded with the local weights of another reference.",
    "figure4": "Figure 4: one latent swept per row, the others fixed at the code of the reference.",
    "reconstructions": "Images, a neighbour of each, and their reconstructions with meta and local weights.",
    "deviation": "Predicted pixels of the references, and their standard deviation over the local posterior.",
    "draws": "Predicted pixels of the first reference with single draws of the local weights.",
    "forest": "The block of local weights: the parameters with the narrowest posteriors.",
    "density": "Posterior densities of the same parameters, by method.",
}
"""Captions of the figures that `hlvae figures` and `hlvae compare` draw, by file name."""

PLAIN_CAPTIONS = {
    "figure3": "Figure 3: codes that all rows share, decoded. No weights are local, so all rows are equal.",
    "figure2": "Figure 2: codes drawn from p(z), decoded.",
    "reconstructions": "Images, a neighbour of each, and their reconstructions: equal, as no weights are local.",
}
"""Captions that differ for a plain VAE."""


class PageTable(NamedTuple):
    """Cells of text, with or without a header; the first column names the row."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


class Picture(NamedTuple):
    """A figure, embedded in the page."""

    caption: str
    url: str
    """data:image/png;base64,…"""


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    title: str
    tables: Sequence[PageTable] = ()
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = ()
    missing: Sequence[tuple[str, str]] = ()
    """Missing results, each with the command that computes it."""


def write_report(run: str | Path) -> Path:
    """Write `report.html` into a run directory atomically; returns its path.

    Args:
        run: the directory of a fit, finished or not.

    Raises:
        ValueError: a file of the run is damaged, or the run is a pretrained one inside the package.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    check_writable(run)
    run = Path(run)
    options = read_options(run)
    saved = read_record(run)
    if not (saved["data"] and saved["versions"]):
        raise ValueError(f"{run / 'options.json'} lacks the data or the versions: restore it, or fit again")
    captions = CAPTIONS | (PLAIN_CAPTIONS if options.alpha == 0 else {})
    pictures = {path.stem: _picture(path, captions) for path in sorted((run / "figures").glob("[!.]*.png"))}
    training, shown, of_scores, of_comparison = _sorted_by_section(pictures)
    sections = [
        Section(
            "Training", [PageTable("Log", ("", "value", "remark"), list(_readings(read_log(run), saved)))], training
        ),
        Section("Figures", pictures=shown, missing=[] if shown else [("figures", command("figures", run))]),
        _scores(run, saved["data"].get("images", 0), of_scores),
        _comparison(run, options.alpha == 0, of_comparison),
        Section("Options", _options(saved)),
    ]
    environment = Environment(
        loader=PackageLoader("hierarchical_lvae.presentation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        name=run.resolve().name,
        summary=_summary(options, saved["preset"]),
        source=saved["data"]["source"],
        status=_status(run, saved),
        seed=saved["seed"],
        version=saved["versions"]["hierarchical-lvae"],
        sections=[section for section in sections if section != Section(section.title)],
    )
    path = run / "report.html"
    write_text(path, page)
    return path


def _picture(path: Path, captions: Mapping[str, str]) -> Picture:
    name, url = path.stem, "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    return Picture(captions.get(name, name.replace("-", ", ").capitalize() + "."), url)


def _sorted_by_section(pictures: dict[str, Picture]) -> tuple[list[Picture], ...]:
    """The pictures of the training, images, scores and comparison sections, each in the order of `CAPTIONS`."""
    known = [name for name in CAPTIONS if name in pictures]
    others = [name for name in pictures if name not in CAPTIONS]
    names: tuple[list[str], ...] = [], [], [], []
    for name in known + others:
        compared = name in ("deviation", "draws", "forest", "density")
        names[0 if name == "training" else 2 if name.startswith("importance") else 3 if compared else 1].append(name)
    return tuple([pictures[name] for name in part] for part in names)


def _summary(options: FitOptions, preset: str) -> str:
    return (
        f"{model(options, usual='')}, {options.neighbourhood} neighbours, B = {options.batch}, "
        f"K = {options.num_neighbours}, preset {preset}"
    )


def _status(run: Path, saved: dict[str, Any]) -> str:
    state = read_state(run)
    if state.step is None:
        return "progress unknown"
    reached = f"{state.step:,} of {saved['steps']:,} steps"
    return reached if state.status == "finished" else f"{reached}: {state.status}, not finished"


def _readings(log: list[dict[str, Any]], saved: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What the log shows about training and the local step: name, value and remark."""
    logged = {key: [line[key] for line in log if line.get(key) is not None] for line in log[-1:] for key in line}
    needed = "loss_before", "loss_after", "distance", "sharpness"  # one that is not finite is null
    diagnosed = [line for line in log if all(line.get(name) is not None for name in needed)]
    if not logged.get("loss"):
        yield "log", "–", "nothing has been logged yet"
        return
    first, last = logged["loss"][0], logged["loss"][-1]
    yield "loss of the queries, first → last", f"{first:,.1f} → {last:,.1f}", "nats per image, means over 50 steps"
    if skipped := count_skipped(log):
        yield "skipped steps", f"{skipped:,} of {log[-1]['step']:,}", "loss or gradient not finite: no weight changed"
    if norms := logged["gradient_norm"]:  # a skipped step has none
        clip = saved["clip"]
        clipped = statistics.fmean(norm > clip for norm in norms) if clip else 0
        bound = f"clipped at {clip:g} in {clipped:.0%} of the logged steps" if clip else "not clipped"
        shown = f"{statistics.median(norms):,.3g} · {max(norms):,.3g}"
        yield "norm of the meta-gradient, median · largest", shown, bound
    if "alpha" in logged:
        yield "α, estimated from the evidence", f"{logged['alpha'][-1]:.3g}", f"started at {logged['alpha'][0]:.3g}"
    if saved["alpha"] and diagnosed:
        at, K = diagnosed[-1], saved["num_neighbours"]
        before, after = at["loss_before"], at["loss_after"]
        lowered = (before - after) / K
        effect = f"lowers it by {lowered:,.2f} per image"
        if lowered <= 0:
            effect = f"does not lower it ({-lowered:+,.2f} per image): try a smaller α"
        yield (
            f"loss of a neighbourhood, meta → local, step {at['step']:,}", f"{before:,.1f} → {after:,.1f}",
            f"nats; the step {effect}",
        )  # fmt: skip
        yield "distance of the local weights, ‖θ_N − θ‖", f"{at['distance']:.3g}", "over all local sites"
        sharpest = max(abs(line["sharpness"]) for line in diagnosed)
        below = "below 2: stable for a quadratic loss"
        above = "not below 2: unstable for a quadratic loss; try a smaller α"
        yield (
            "sharpness of the step, τ²λ, batch means, last · largest", f"{at['sharpness']:.3g} · {sharpest:.3g}",
            "of a step, which exact inference does not take" if saved.get("local") == "exact" else
            below if sharpest < 2 else above,
        )  # fmt: skip
    yield (
        "images per second, median",
        f"{statistics.median(logged['images_per_second']):,.0f}",
        "queries and neighbours",
    )


def _options(saved: dict[str, Any]) -> list[PageTable]:
    parts = {"data", "versions"}
    options = [(name, "–" if value is None else str(value)) for name, value in saved.items() if name not in parts]
    about = {**{f"data: {name}": value for name, value in saved["data"].items()}, **saved["versions"]}
    versions = [(name, str(value)) for name, value in about.items()]
    return [PageTable("Fit options", (), options), PageTable("Data and versions", (), versions)]


def _scores(run: Path, images: int, pictures: Sequence[Picture]) -> Section:
    """The scores that `evaluate` saved, one table each; those that are not current are marked."""

    tables, current, old_meta = [], [], []
    saved, weights = read_scores(run), model_digest(run)
    for key, values in saved.items():
        about = values.get("settings", {})
        name, old = key.removesuffix(META), outdated(values, weights)
        shown = {k: v for k, v in about.items() if k not in ("model", "data", "versions", "weights")}
        points = {k: v for k, v in shown.items() if k in ("train", "test")}
        if "parts" in values or sum(points.values()) > images:
            shown |= {k: f"at most {v}" for k, v in points.items()}
        how = ", ".join(f"{k} {v}" for k, v in shown.items())
        tables.append(PageTable(f"{name}{old and f' of {old}'} ({how})", (), lines(name, values)))
        current += [] if old else [key]
        old_meta += [name] if old and key.endswith(META) else []
    missing = []
    for lacking, of, options in (
        ([name for name in SCORES if name not in current], "", ()),
        (old_meta, " for meta codes", ("--codes", "meta")),
    ):
        if lacking:
            how = command("evaluate", run, "--metrics", ",".join(lacking), *options)
            missing.append((", ".join(lacking) + of, how))
    return Section("Scores", tables, pictures, missing=missing)


def _comparison(run: Path, plain: bool, pictures: Sequence[Picture]) -> Section:
    """The results that `compare` saved: a table for all local weights, and one for the block."""

    title, file = "Local posteriors", run / "compare.csv"
    if plain:
        return Section(
            title, pictures=pictures, notes=["With α = 0, no weights are local, so there is nothing to compare."]
        )
    if not file.is_file():
        return Section(title, pictures=pictures, missing=[("comparison of local posteriors", command("compare", run))])
    with file.open(newline="", encoding="utf-8") as opened:
        header, *rows = csv.reader(opened)
    if len(header) != len(COLUMNS) + 1:
        raise ValueError(f"{file} has unexpected columns: run `{command('compare', run)}` again")
    headings, (_, *formats) = zip(*COLUMNS.values(), strict=True)
    tables = []
    for part in dict.fromkeys(row[0] for row in rows):
        cells = [
            (method, *("–" if v == "" else form.format(_number(v)) for form, v in zip(formats, values, strict=True)))
            for kind, method, *values in rows
            if kind == part
        ]
        tables.append(PageTable(part.capitalize(), headings, cells))
    notes = [*NOTES] if rows else []
    if (run / "posterior.nc").is_file():
        notes.append("posterior.nc holds the draws: read it with arviz.from_netcdf")
    return Section(title, tables, pictures, notes)


def _number(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() else number
