"""Scores as text: one line per number, one column per run."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

LONGEST = 200
"""Maximum number of characters in a cell."""

Lines = list[tuple[str, str]]

NOTES = {
    "dci mig sap factor-vae beta-vae modularity": "codes: 1 is best; informativeness and the FactorVAE and BetaVAE "
    "scores are accuracies · disentanglement needs at least two factors",
    "swap": "swap: 1 if a factor of the decoded image follows the code, 0 if it follows the local weights · in "
    "brackets, over pairs that differ in the factor: the shares of decoded images that show the value of the code's "
    "image and of the weights' image, and the share of reconstructions that show their own value",
    "fid": "squared feature distances and KID: 0 is best (FD-factors is not FID) · precision, recall: 1 is best",
    "samples": "samples: root-mean-square distance per pixel, from samples to their reference and to the nearest "
    "training image, and from references to the nearest other image",
    "iwae": "iwae: bounds on log p(x | θ_N) with k draws, higher is better, for the points adapted on, for other "
    "points of their neighbourhood (held out) and for the image itself (reference) · squared error: per pixel, with "
    "local weights and without (meta) · active units: latents that vary with the image",
}
"""Explanations of the lines, by the scores that they belong to."""


def lines(name: str, values: dict[str, Any]) -> Lines:
    """Format a score as pairs of label and text."""
    if "parts" in values:
        return [line for part, inner in values["parts"].items() for line in lines(f"{part} {name}", inner)]
    for key in ("failed", "not_available"):
        if key in values:
            return [(name, f"– ({_short(values[key])})"), *_left_out(name, values)]
    own = {"swap": _swap, "fid": _fid, "samples": _samples, "iwae": _iwae}.get(name)
    shown = own(values) if own else _numbers(name, values)
    return [*shown, *_left_out(name, values)]


def has_numbers(values: dict[str, Any]) -> bool:
    """Whether a score was computed, at least for one part of the data.

    >>> has_numbers({"mig": 0.5}), has_numbers({"parts": {"a": {"failed": "why"}, "b": {"not_available": "why"}}})
    (True, False)
    """
    if "parts" in values:
        return any(map(has_numbers, values["parts"].values()))
    return "failed" not in values and "not_available" not in values


def notes(names: Collection[str]) -> list[str]:
    """The explanations of these scores.

    >>> notes(["fid"])
    ['squared feature distances and KID: 0 is best (FD-factors is not FID) · precision, recall: 1 is best']
    """
    return [note for of, note in NOTES.items() if set(of.split()) & {*names}]


def _left_out(name: str, values: dict[str, Any]) -> Lines:
    """The factors that a score leaves out; the line is the same for all scores on the same points."""
    part = name.rpartition(" ")[0]
    listed = ", ".join(f"{factor} ({why})" for factor, why in values.get("left_out", {}).items())
    return [(f"{part} left out".strip(), _short(listed))] if listed else []


def _short(text: str) -> str:
    """Shorten text from a user or an error to fit a cell.

    >>> _short("no\\nsuch  factor")
    'no such factor'
    """
    return shorten(text, LONGEST, placeholder=" …")


def _numbers(name: str, values: dict[str, Any]) -> Lines:
    flat = dict(values)
    for part in ("without_colour", "of_colour"):
        flat |= {f"{part} {key}": value for key, value in values.get(part, {}).items()}
    shown = {key: value for key, value in flat.items() if isinstance(value, int | float)}
    return [
        (
            (name if key == name.rpartition(" ")[2] else f"{name} {key}").replace("_", " "),
            str(value) if isinstance(value, int) else f"{value:.3f}",
        )
        for key, value in shown.items()
    ]


def _swap(values: dict[str, Any]) -> Lines:
    columns = (values[key] for key in ("factors", "in_code", "error", "code", "weights", "ceiling"))
    return [
        (
            f"swap {name}",
            ("follows neither" if a is None else f"{a:.2f} ± {error:.2f}")
            + f" (code {code:.2f}, weights {weights:.2f}, own {ceiling:.2f})",
        )
        for name, a, error, code, weights, ceiling in zip(*columns, strict=True)
    ]


def _fid(values: dict[str, Any]) -> Lines:
    name = values["name"]
    return [
        (name, f"{values['distance']:.3f}"),
        (f"KID of {name}", f"{values['kid']:.4f} ± {values['kid_std']:.4f}"),
        *((f"{kind} of {name}", f"{values[kind]:.3f}") for kind in ("precision", "recall")),
    ]


def _samples(values: dict[str, Any]) -> Lines:
    shown = ("to_reference", "to_nearest", "reference_to_nearest_other")
    found = [(f"samples {key}".replace("_", " "), f"{values[key]:.4f}") for key in shown]
    return [*found, ("samples nearest is reference", f"{values['nearest_is_reference']:.0%}")]


def _iwae(values: dict[str, Any]) -> Lines:
    found = []
    for part in ("adapted_on", "held_out", "reference"):
        for k, nats in values[part]["nats"].items():
            found.append((f"iwae {part.replace('_', ' ')} {k}", f"{nats:.1f} nats"))
        found.append((f"iwae {part.replace('_', ' ')}", f"{values[part]['bits_per_dimension']:.4f} bits/dim"))
    found += [(f"squared error {kind}", f"{error:.5f}") for kind, error in values["squared_error"].items()]
    return [*found, ("active units", str(values["active_units"]))]


def table(columns: Mapping[Path, Mapping[str, str]]) -> list[str]:
    """Lay out one line per score and one column per run."""
    labels = list(dict.fromkeys(label for column in columns.values() for label in column))
    names = [path.resolve().name for path in columns]
    cells = [["", *(name if names.count(name) == 1 else str(path) for name, path in zip(names, columns, strict=True))]]
    cells += [[label, *(column.get(label, "–") for column in columns.values())] for label in labels]
    return aligned(cells)


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lay out rows of cells as lines of text: the first column to the left, the others to the right.

    >>> aligned([["", "run"], ["mig", "0.5"]])
    ['     run', 'mig  0.5']
    """
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join([first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(rest, widths[1:], strict=True))])
        for first, *rest in cells
    ]
