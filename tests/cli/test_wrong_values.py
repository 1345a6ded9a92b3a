"""Every option and argument of every command, given wrong values: exit code 1 or 2, and one line, with no traceback.

The cases are made from click's own list of parameters, so that a new option is tested as soon as it exists.
"""

import shlex

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from hierarchical_lvae.cli import main
from hierarchical_lvae.cli.app import failure
from hierarchical_lvae.cli.fit import Alpha
from hierarchical_lvae.cli.names import (
    Device,
    Finite,
    Location,
    Name,
    NameOrPath,
    Names,
    NeighbourhoodName,
    PenaltyName,
    Separated,
)
from hierarchical_lvae.runs import FitOptions
from hierarchical_lvae.training import fit

NOT_UTF8 = "caf\udce9"  # as Python decodes a byte that is not UTF-8
WORDS = ("bogus", "", "two words", NOT_UTF8)
WHOLE = ("-1", "0", "x", "1.5", "nan", "inf", "", str(10**30), "9" * 5000)
REAL = ("nan", "inf", "-inf", "-1", "1e400", "x", "")
PATHS = ("", "/dev/null/x", "x" * 300, "a\0b", "{text}")
"""Wrong for any path: the last is a text file."""

ROLES = {
    "run": (*PATHS, "{nowhere}", "{empty}", NOT_UTF8),
    "existing directory": (*PATHS, "{nowhere}"),
    "directory": PATHS,
    "new directory": (*PATHS, "{full}"),
    "runs": (*PATHS, "{table}"),
    "new file": (*PATHS, "{full}", "/dev/null"),
    "file": (*PATHS, "{nowhere}", "{empty}"),
}
"""What is wrong for a path, by what it is for."""
FOR = {
    "run": "run",
    "against": "run",
    "resume": "run",
    "data_dir": "existing directory",
    "data download data_dir": "directory",
    "data render data_dir": "directory",
    "out": "new directory",
    "data render out": "new file",
    "reproduce out": "runs",
    "bench file": "new file",
    "inception_weights": "file",
}
"""What a path is for, by parameter, or by command and parameter where commands differ."""

TEXTS = {
    "index": ("bogus", "", ",", "Flat,,Flat", "two words", "PCA,Flat", "IVF0,Flat"),
    "block": ("bogus", "", ",", "two words"),
    "local_layers": ("bogus", "", ",", "head,,all", "head,bogus", "two words"),
    "rows": ("bogus", "", ",", "local,,local", "two words"),
    "dask": ("nonsense", "", "tcp://", "two words", "tcp://127.0.0.1:x"),
}
"""Wrong values of options that are free text."""

ACCEPTED = {
    "0": {
        "fit seed": "a seed",
        "evaluate seed": "a seed",
        "compare seed": "a seed",
        "figures seed": "a seed",
        "bench seed": "a seed",
        "fit warm_up": "no warm-up",
        "fit refresh": "codes are never encoded again",
    },
}
"""Values of those above that are right for some parameters, and why."""

FIT = "--dataset digits --preset quick --steps 1 -B 2 -K 2 --device cpu --out {new}"
BASE = {
    "": "",
    "fit": f"{FIT} --neighbourhood noise",
    "fit index": f"{FIT} --neighbourhood input-knn",
    "fit resume": "",
    "evaluate": "{run} --metrics mig --points 20 10",
    "evaluate inception_weights": "{run} --metrics fid --images 5",
    "figures": "{run}",
    "report": "{run}",
    "compare": "{run} --local one-step --neighbourhoods 1 --reference 1 --draws 50",
    "compare block": "{run} --local laplace-block --neighbourhoods 1 --reference 1 --draws 50",
    "reproduce": "table1 --steps 1 --out {new}",
    "bench": "-B 1 -K 1 --image-size 8 --rounds 1",
    "doctor": "",
    "data": "",
    "data list": "",
    "data info": "digits",
    "data download": "3dshapes",
    "data render": "3dshapes --out {new}.h5",
}
"""The other words of a command, or of one parameter's cases; arguments come first."""


def parameters(group=main, prefix=""):
    """Each parameter of each command, with the words that call the command."""
    for param in group.params:
        yield prefix, param
    for name, command in getattr(group, "commands", {}).items():
        yield from parameters(command, f"{prefix} {name}".strip())


ALL = {f"{command} {param.name}".strip(): (command, param) for command, param in parameters()}


def wrong(key):
    """Wrong values of a parameter, each as a list of words."""
    _, param = ALL[key]
    kind = param.type
    if getattr(param, "is_flag", False):
        return [[f"{param.opts[0]}=x"]]
    if isinstance(kind, click.Tuple):
        values = [[*pair] for v in WHOLE for pair in ((v, "10"), ("10", v))]
    else:
        values = [[value] for value in _values(key, param) if key not in ACCEPTED.get(value, {})]
    return values if isinstance(param, click.Argument) else [[param.opts[0], *words] for words in values]


def _values(key, param):
    kind = param.type
    if isinstance(kind, click.IntRange):
        return WHOLE
    if isinstance(kind, Finite | Alpha):
        return REAL
    if isinstance(kind, Device):
        return ("bogus", "cuda:99", "cpu:1", "cuda:", "cuda:-1", "meta", "")
    if isinstance(kind, Names):
        return (*WORDS, ",", f"{kind.known[0]},,{kind.known[1]}", f"{kind.known[0]},bogus")
    if isinstance(kind, Separated):
        return TEXTS[param.name]
    if isinstance(kind, PenaltyName):
        return (*WORDS, "tc:", "tc:x", "tc:nan", "tc:inf", "tc:-1", "tc:1e400", "tc:1:2")
    if isinstance(kind, NeighbourhoodName):
        return (*WORDS, "graph:", "graph:{nowhere}", "graph:{empty}", "graph:{text}", "noise:x", "labels:bogus")
    if isinstance(kind, NameOrPath):
        return (*WORDS, *PATHS, "{nowhere}", "{empty}", "{text}.npz", "{text}.h5")
    if isinstance(kind, Name):
        return WORDS
    if isinstance(kind, Location):
        return ROLES[FOR.get(key) or FOR[param.name]]
    assert isinstance(kind, click.types.StringParamType), f"{key} is of a new type: add wrong values of it"
    return TEXTS[param.name]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Paths by the names in braces above."""
    directory = tmp_path_factory.mktemp("wrong")
    small = FitOptions.of("quick", dataset="digits", steps=1, batch=2, num_neighbours=2, neighbourhood="noise")
    fit(small, directory / "run")
    (directory / "full").mkdir()
    (directory / "table").mkdir()
    for file in ("full/mine", "table/table.md", "text", "text.npz", "text.h5"):
        (directory / file).write_text("some text\n", encoding="utf-8")
    (directory / "empty").mkdir()
    (directory / "cache").mkdir()
    return {name: directory / name for name in ("run", "full", "table", "text", "empty", "nowhere")}


@pytest.fixture(autouse=True)
def nothing_slow(monkeypatch):
    """Let a wrong value that is not refused before a download, a rendering or the fits of a table fail there."""

    def refuse(*_, **__):
        raise AssertionError("too late")

    for slow in ("data.shapes3d.load_replica", "experiments.workers.Parallel"):
        monkeypatch.setattr(f"hierarchical_lvae.{slow}", refuse)
    monkeypatch.setattr("requests.get", refuse)


def fault(words):
    """What is wrong about how a command fails; "" if nothing is."""
    result = CliRunner().invoke(main, words)
    lines = [line for line in result.stderr.splitlines() if line.strip() and "%|" not in line]
    lines = [line for line in lines if not line.startswith("Skipped: ")]  # a run beside others, which are scored
    about = f"exit code {result.exit_code}, {lines or result.stdout[-500:]!r}"
    if result.exit_code not in (1, 2) or not isinstance(result.exception, SystemExit):
        return f"{about} {result.exception!r}"
    if "Traceback" in result.output or "unexpected" in result.output or "[Errno" in result.output:
        return about
    if result.exit_code == 2 and lines[0].startswith("Usage: "):
        lines = lines[next(i for i, line in enumerate(lines) if line.startswith("Try ")) + 1 :]
    return "" if len(lines) == 1 and lines[0].startswith("Error: ") and len(lines[0]) > 20 else about


@pytest.mark.parametrize("key", ALL)
def test_a_wrong_value_is_one_line_and_an_exit_code(key, places, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HLVAE_DATA", str(places["empty"].with_name("cache")))
    command, param = ALL[key]
    found = []
    for words in wrong(key):
        words = [word.format(**places) for word in words]
        rest = shlex.split(BASE.get(key, BASE[command]).format(**places, new="new"))
        rest = [*words, *rest[1:]] if isinstance(param, click.Argument) else [*rest, *words]
        if why := fault([*command.split(), *rest]):
            found.append(f"{shlex.join(words)}: {why}")
        if left := list(tmp_path.iterdir()):
            found.append(f"{shlex.join(words)}: leaves {left[0].name}")
            left[0].rename(tmp_path.with_name(f"{tmp_path.name}-left-{len(found)}"))
    assert not found, "\n".join(found).encode("ascii", "backslashreplace").decode()


@pytest.mark.parametrize(
    "words",
    [
        "fit --dataset digits --preset quick --neighbourhood noise --device cpu --out new -K 100000000",
        "fit --dataset digits --preset quick --neighbourhood noise --device cpu --out new -B 2147483647",
        "bench --device cpu -B 1000000 -K 1000",
        "bench --device cpu --image-size 4096 -B 1000",
    ],
)
def test_a_step_that_cannot_fit_is_refused_before_it_is_tried(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, words.split())
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.strip() and "step/s" not in line]
    assert "images needs at least" in line
    assert line.endswith("try smaller batches, fewer neighbours or smaller images")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "too_much",
    [
        lambda: torch.empty(2**50),
        lambda: torch.empty(2**62, 2**62),
        lambda: torch.zeros(5).expand(2**61, 5).contiguous(),
        lambda: np.empty(2**57),
        lambda: bytearray(2**60),
        lambda: (2.0) ** 2000,
    ],
)
def test_what_does_not_fit_into_memory_is_one_line(too_much, monkeypatch):
    monkeypatch.setattr("hierarchical_lvae.data.load_dataset", lambda *_, **__: too_much())
    result = CliRunner().invoke(main, ["data", "info", "digits"])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: this needs more memory than is available (")
    assert line.endswith("): try smaller batches, fewer neighbours or smaller images")
    assert "enforce fail" not in line
    assert "Error code" not in line


def test_what_does_not_fit_on_a_gpu_is_one_line():
    text = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.10 GiB, of which …\nIf …"
    assert failure(torch.OutOfMemoryError(text)).message == (
        "this needs more memory than is available (CUDA out of memory. Tried to allocate 20.00 GiB): "
        "try smaller batches, fewer neighbours or smaller images"
    )


def test_there_are_many_cases():
    assert sum(len(wrong(key)) for key in ALL) > 400


def test_values_that_are_accepted_are_converted():
    for value, keys in ACCEPTED.items():
        for key in keys:
            _, param = ALL[key]
            assert value in _values(key, param)
            assert param.type.convert(value, param, None) == float(value)
