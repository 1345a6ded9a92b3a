"""The crash matrix: end the process at every touch of the disk, go on, and compare with what was never disturbed.

    python -m tests.crashes                        # all points: some minutes
    python -m tests.crashes --every 40             # a selection
    python -m tests.crashes --every 2 --offset 1   # one half; beside it, with --offset 0, the other
    python -m tests.crashes --only evaluate --list

A scenario is run once undisturbed, and its *points* are counted: each opening of a file for writing, fsync, rename,
removal, change of mode and new directory beneath its directory, each step of Adam, and each part of the data that the
code bank encodes. No hook stands in the package: `os`, `io` and two methods are wrapped, so that a write that is new
has its points at once. Then, a forked process a point, the scenario comes to it and

    dies     by `os._exit`, before the call (which is after the one before it);
    tears    the same, but of what was written and not yet synced only the first half is left, as when power fails;
    fills    the call fails as on a full disk: an OSError of one line must come out, and the process lives;

after which another process goes on (`--resume`, or the same command) and must leave the same files, byte for byte but
for what tells times.
"""

import argparse
import builtins
import errno
import io
import json
import os
import pickle
import re
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click
import h5py
import torch

from hierarchical_lvae import experiments
from hierarchical_lvae.cli import main
from hierarchical_lvae.evaluation import factor_classifier
from hierarchical_lvae.neighbourhoods.latent import NearestCodes
from hierarchical_lvae.runs import FitOptions
from hierarchical_lvae.training import fit, loop, resume

CALLS = ("open", "fsync", "replace", "rename", "unlink", "rmdir", "mkdir", "chmod")
REFUSABLE = ("write", "open", "fsync", "replace", "mkdir")
CACHES = ("hlvae-nearest", "hlvae-factor-features")
"""What may be left out where it cannot be written, and is computed again."""
DIED, REFUSED, WRONG = 70, 71, 72
OPTIONS = {"dataset": "digits", "batch": 2, "num_neighbours": 2, "latent_dim": 3, "lr": 1e-3}
STEPS, SMALL = 4, ["--points", "60", "30", "--images", "60"]
RUN = Path("run")


class Point(NamedTuple):
    """A moment of a scenario."""

    name: str
    """What is about to be called, the how-manieth time, and on what: "replace #7 (state.safetensors)"."""
    on_disk: bool
    """Whether it is a call that the disk can refuse."""
    torn: bool
    """Whether anything stands on the disk that was not synced."""

    @property
    def ways(self) -> list[str]:
        """What can befall it."""
        return ["dies"] + ["tears"] * self.torn + ["fills"] * self.on_disk


class Disk:
    """Counts the points of this process, and ends it (or fails the call) at one of them."""

    def __init__(self, stop_at: int = -1, how: str = "") -> None:
        self.root, self.stop_at, self.how = os.getcwd(), stop_at, how
        self.points: list[Point] = []
        self.counts: Counter[str] = Counter()
        self.unsynced: dict[str, int] = {}
        """By path, how many bytes of a file are safe."""

    def watch(self) -> None:
        """Wrap the calls, for the rest of the process."""
        for name in CALLS:
            setattr(os, name, self._wrapped(name, getattr(os, name)))
        builtins.open = io.open = self._wrapped("write", io.open)
        torch.optim.Adam.step = self._step(torch.optim.Adam.step, "adam")
        NearestCodes._encode = self._step(NearestCodes._encode, "encode")

    def _step(self, call: Callable, name: str) -> Callable:
        def wrapped(*args, **kwargs):
            self.reach(name, "")
            result = call(*args, **kwargs)
            self.reach(f"after {name}", "")
            return result

        return wrapped

    def _wrapped(self, name: str, call: Callable) -> Callable:
        def wrapped(target, *args, **kwargs):
            path = self._path(target)
            if path is None or not _writes(name, args, kwargs) or (name == "mkdir" and os.path.isdir(path)):
                return call(target, *args, **kwargs)
            size = (
                os.path.getsize(path) if name == "write" and "a" in _mode(args, kwargs) and os.path.exists(path) else 0
            )
            self.reach(name, path)
            result = call(target, *args, **kwargs)
            if name in ("open", "write"):
                self.unsynced.setdefault(path, size)
            elif name in ("fsync", "unlink"):
                self.unsynced.pop(path, None)
            elif name in ("replace", "rename") and path in self.unsynced:
                self.unsynced[self._path(args[0])] = self.unsynced.pop(path)
            return result

        return wrapped

    def _path(self, target) -> str | None:
        """The path that a call is about, if it lies in the scenario's directory."""
        path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.path.abspath(os.fspath(target))
        return path if path.startswith(self.root + os.sep) and not path.endswith("/.hlvae.lock") else None

    def reach(self, name: str, path: str) -> None:
        """Note a point; if it is the one, end here."""
        self.counts[name] += 1
        about = re.sub(r"^\.hlvae-(.+)-\w{8}(\.\w+)$", r"\1\2", os.path.basename(path))
        torn = {p: safe for p, safe in self.unsynced.items() if os.path.exists(p) and os.path.getsize(p) > safe}
        named = f"{name} #{self.counts[name]}" + (f" ({about})" if about else "")
        self.points.append(Point(named, name in REFUSABLE, bool(torn)))
        if len(self.points) - 1 != self.stop_at:
            return
        if self.how == "fills":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        for torn_path, safe in torn.items() if self.how == "tears" else ():
            os.truncate(torn_path, (safe + os.path.getsize(torn_path)) // 2)
        os._exit(DIED)


def _mode(args, kwargs) -> str:
    return str(kwargs.get("mode", args[0] if args else "r"))


def _writes(name: str, args, kwargs) -> bool:
    if name == "write":
        return bool(set(_mode(args, kwargs)) & set("wax+"))
    return name != "open" or bool(args[0] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


class Scenario(NamedTuple):
    """Something that writes, in the working directory."""

    act: Callable[[], object]
    again: Callable[[], object]
    """What a user does after it was ended."""
    before: Callable[[], object] = lambda: None
    lives: bool = False
    """Whether it tells of what fails, and goes on with the rest."""


def options(steps: int, **changes) -> FitOptions:
    return FitOptions.of("quick", data_dir="data", **{**OPTIONS, "steps": steps, "refresh": 2, **changes})


def begin(steps: int = STEPS, **changes) -> None:
    fit(options(steps, **changes), RUN, checkpoint_every=0)


def go_on(**changes) -> None:
    if (RUN / "options.json").exists():
        resume(RUN, STEPS, checkpoint_every=0)
    else:
        begin(**changes)


def command(*words: str) -> Scenario:
    return Scenario(*2 * [lambda: main(list(words), standalone_mode=False)], begin)


TABLE = experiments.Table(
    "A table of digits",
    {key: value for key, value in OPTIONS.items() if key != "lr"},
    {"DCI": ("dci", "disentanglement")},
    (experiments.Row("local", {}, (0.5,)), experiments.Row("plain", {"alpha": 0.0}, (None,))),
)
SCORES = ["--metrics", "dci,mig,fid,samples", "--features", "factors", *SMALL]
SCENARIOS = {
    "fit": Scenario(begin, go_on),
    "resume": Scenario(go_on, go_on, lambda: begin(2)),
    "input-knn": Scenario(*[lambda: go_on(neighbourhood="input-knn")] * 2),
    "evaluate": command("evaluate", "run", "--data-dir", "data", *SCORES),
    "figures": command("figures", "run", "--data-dir", "data"),
    "compare": command(
        "compare", "run", "--data-dir", "data", "--local", "one-step,laplace-block",
        "--neighbourhoods", "2", "--draws", "50"
    ),
    "reproduce": command(
        "reproduce", "table5", "--data-dir", "data", "--out", "table", "--steps", "2", "--jobs", "1", "--device", "cpu",
        *SMALL
    )._replace(lives=True),
}  # fmt: skip


def files() -> dict[str, object]:
    """What lies in the working directory, without hidden files, caches and times."""
    found = {}
    for path in sorted(Path().rglob("*")):
        if path.is_file() and not path.name.startswith((".", *CACHES)):
            content: object = path.read_bytes()
            if path.name == "log.jsonl":
                lines = [json.loads(line) for line in path.read_text().splitlines()]
                content = [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]
            elif path.name == "compare.csv":
                content = [line.rpartition(",")[0] for line in path.read_text().splitlines()]
            elif path.suffix == ".nc":  # it holds the time it was written at
                with h5py.File(path) as file:
                    content = file["posterior/theta_N"][...].tobytes()
            found[str(path)] = content
    return found


def forked(directory: Path, work: Callable[..., int | None], *args) -> int:
    """The exit code of a process that does this work in a directory; what it prints is not heard."""
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.chdir(directory)
            os._exit(work(*args) or 0)
        except BaseException:
            traceback.print_exc()
            os._exit(WRONG)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def record(scenario: Scenario, found: Path) -> None:
    """Run it undisturbed; leave its points, and the files that it leaves, in a file."""
    disk = Disk()
    disk.watch()
    scenario.act()
    points = list(disk.points)
    found.write_bytes(pickle.dumps((points, files())))


def disturb(scenario: Scenario, number: int, how: str) -> int:
    """Come to a point, and end there: DIED, or REFUSED by an error of one line that names a path."""
    disk = Disk(number, how)
    disk.watch()
    try:
        scenario.act()
    except (OSError, click.ClickException) as error:
        message = error.message if isinstance(error, click.ClickException) else str(error)
        return REFUSED if how == "fills" and "\n" not in message and "cannot be written" in message else WRONG
    return 0


def compare_with(truth: dict[str, object], scenario: Scenario) -> int:
    """Go on, and see whether all is as if nothing had been."""
    scenario.again()
    found = files()
    different = sorted(name for name in truth.keys() | found.keys() if truth.get(name) != found.get(name))
    if different:
        print(f"  differs: {', '.join(different)}", file=sys.stderr)
    return WRONG if different else 0


def run_scenario(name: str, every: int, offset: int, only_list: bool) -> tuple[int, list[str]]:
    """All points of a scenario, or each `every`-th from `offset` on: how many, and which were lost."""
    scenario = SCENARIOS[name]
    with tempfile.TemporaryDirectory(prefix="crash-") as place:
        base, case, found = (Path(place, part) for part in ("base", "case", "found"))
        (base / "data").mkdir(parents=True)
        assert forked(base, scenario.before) == 0, f"{name} cannot be prepared"
        shutil.copytree(base, case)  # where the others will be: options.json names the place
        assert forked(case, record, scenario, found) == 0, f"{name} fails undisturbed"
        points, expected = pickle.loads(found.read_bytes())
        chosen = [(number, how) for number, point in enumerate(points) for how in point.ways][offset::every]
        lost = []
        for number, how in chosen:
            if only_list:
                print(f"{name}: {how} at {points[number].name}")
                continue
            shutil.rmtree(case, ignore_errors=True)
            shutil.copytree(base, case)
            code = forked(case, disturb, scenario, number, how)
            after = forked(case, compare_with, expected, scenario)
            spared = any(f"{name}-" in points[number].name for name in CACHES)
            wanted = [DIED] if how != "fills" else [0] if spared else [REFUSED] + [0] * scenario.lives
            if code not in wanted or after != 0:
                lost.append(f"{name}: {how} at {points[number].name} (exit {code}, then {after})")
                print(f"LOST {lost[-1]}", file=sys.stderr)
    return len(chosen), lost


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(SCENARIOS), help="scenarios, with commas")
    parser.add_argument("--every", type=int, default=1, help="take each so-manieth point")
    parser.add_argument("--offset", type=int, default=0, help="begin with this one")
    parser.add_argument("--list", action="store_true", help="name the points alone")
    return parser.parse_args()


if __name__ == "__main__":
    torch.set_num_threads(1)  # what is forked has one thread
    loop.LOG_EVERY = 2
    factor_classifier.STEPS = 3
    experiments.TABLES["table5"] = TABLE
    given = parse()
    with tempfile.TemporaryDirectory() as place:  # what is loaded late is loaded here, once
        os.chdir(place)
        Path("data").mkdir()
        begin(2)
        os.chdir("/")
    total, lost = 0, []
    for each in given.only.split(","):
        count, names = run_scenario(each, given.every, given.offset, given.list)
        print(f"{each}: {count} points, {len(names)} lost", flush=True)
        total, lost = total + count, lost + names
    print(f"{total} points, {len(lost)} lost")
    sys.exit(bool(lost))
