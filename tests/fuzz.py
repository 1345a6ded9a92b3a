"""Files from strangers: damage small valid files at random, and see that each is read, or refused in one line.

    python -m tests.fuzz --inputs 100000           # of all formats together
    python -m tests.fuzz --only graph --inputs 5000 --seed 1
    python -m tests.fuzz --only graph --start 4711 --inputs 1 --keep .     # one again, kept

An input is a seed file with one to four mutations (bits, lengths, splices, repeats, sizes, numbers of a text); of
packed files, half of them beneath the packing. Each format has a process of its own, so that a crash ends but that.
An input fails if its reader

    raises anything but ValueError or OSError, or not in one line that names the file;
    takes more than `SECONDS` of the processor;
    unpickles, opens a socket, starts a process, or writes outside the directory of the file;
    makes the process larger than at its start by more than `MULTIPLE` times the file and its format's `slack`.

The mutations are our own: it is the readers' error paths that are wanted, at some thousand inputs a second, and not
coverage of the libraries beneath, which have fuzzers of their own.
"""

import argparse
import json
import logging
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import torch

from tests.fuzz_formats import FORMATS

SECONDS = 10
MULTIPLE = 1040
"""The most that deflate packs is 1,032 bytes into one."""
SIZES = (0, 1, 2, 3, 7, 255, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1)
WORDS = (b"null", b"-1", b"1e999", b"NaN", b"[]", b"{}", b'""', b"true", b"9" * 30, b"0", b"[" * 3000, b"\xff", b"\n")


class Hang(BaseException):
    """A reader does not come to an end."""


def mutated(content: bytes, rng: random.Random) -> bytes:
    """One to four random changes."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at, width = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 8))
        if rng.random() < 0.3:
            at = min(at, rng.randrange(256))  # headers stand first
        end = min(len(data), at + rng.choice((1, 4, 16, 64, 512)))
        kind = rng.randrange(8)
        if kind == 0 and data:
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = data[at:end] * rng.choice((1, 2, 50))
        elif kind == 4:
            start = rng.randrange(len(data) + 1)
            data[at:end] = data[start : start + end - at]
        elif kind == 5:
            number = rng.choice(SIZES) % 256**width
            data[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 6:
            data[at:end] = rng.randbytes(end - at)
        else:
            data[at:end] = rng.choice(WORDS)
    return bytes(data)


def one(name: str, number: int, seed: int) -> bytes:
    """The input of this number."""
    rng = random.Random(f"{seed} {name} {number}")
    packing = FORMATS[name].packing
    content = rng.choice(FORMATS[name].seeds())
    if packing and rng.random() < 0.5:
        return packing(content, lambda inner: mutated(inner, rng), rng)
    return mutated(content, rng)


def refuse_side_effects(root: str) -> None:
    """From now on, what a file has no business to do is a `SystemError`."""

    def hook(event: str, args: tuple) -> None:
        if event in ("pickle.find_class", "socket.connect", "subprocess.Popen", "os.system", "os.exec", "os.fork"):
            raise SystemError(f"{event} {args}")
        if event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir") or (
            event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ):
            path = os.path.abspath(os.fsdecode(args[0])) if not isinstance(args[0], int) else root
            if not path.startswith(root):
                raise SystemError(f"{event} {path}")

    sys.addaudithook(hook)


def fault(name: str, content: bytes, path: Path, start: int) -> str:
    """What is wrong with how a file is read; "" if nothing."""
    path.write_bytes(content)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        FORMATS[name].read(path)
    except (ValueError, OSError) as error:
        message = str(error)
        if "\n" in message or path.name not in message or "not fit into memory" in message:
            return f"says {type(error).__name__}: {message[:300]!r}"
    except (Exception, Hang):
        return traceback.format_exc(limit=-3)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    grown = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
    return f"took {grown:,} bytes for {len(content):,}" if grown > FORMATS[name].slack + MULTIPLE * len(content) else ""


def work(name: str, numbers: range, given: argparse.Namespace, place: Path) -> None:
    """Read these inputs; note in `place` how far it came, and what failed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff talks
    directory = place / "here"
    path = directory / FORMATS[name].file
    directory.mkdir(exist_ok=True)
    FORMATS[name].read_once(path)
    used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**33, used + 2**33))
    signal.signal(signal.SIGPROF, lambda *_: (_ for _ in ()).throw(Hang))
    refuse_side_effects(str(place))
    start = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (place / "notes").open("ab", buffering=0) as notes:
        for number in numbers:
            content = one(name, number, given.seed)
            notes.write(struct.pack("<q", number))
            if wrong := fault(name, content, path, start):
                with (place / "faults").open("a") as file:
                    file.write(json.dumps([number, wrong]) + "\n")
                start = max(start, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            if given.keep:
                Path(given.keep, f"{name}-{number}").write_bytes(content)


def run_format(name: str, numbers: range, given: argparse.Namespace) -> tuple[int, list[tuple[int, str]]]:
    """How many inputs were read, and those that failed."""
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as where:
        place, crashes = Path(where), []
        while numbers:
            pid = os.fork()
            if pid == 0:
                try:
                    work(name, numbers, given, place)
                    os._exit(0)
                except BaseException:
                    (place / "broken").write_text(traceback.format_exc())
                    os._exit(1)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if code == 0:
                break
            if (place / "broken").exists():
                raise RuntimeError((place / "broken").read_text())
            (last,) = struct.unpack("<q", (place / "notes").read_bytes()[-8:])
            crashes.append((last, f"the process ended by {code}"))
            numbers = range(last + 1, numbers.stop)
        read = (place / "notes").stat().st_size // 8
        found = (
            [json.loads(line) for line in (place / "faults").read_text().splitlines()]
            if (place / "faults").exists()
            else []
        )
    return read, [*crashes, *map(tuple, found)]


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="of all formats together")
    parser.add_argument("--only", default=",".join(FORMATS), help="formats, with commas")
    parser.add_argument("--start", type=int, default=0, help="the number of the first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", help="a directory for the inputs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable()
    names = given.only.split(",")
    shares = sum(FORMATS[name].share for name in names)
    total = failed = 0
    for name in names:
        number = -(-given.inputs * FORMATS[name].share // shares)
        begun = time.monotonic()
        read, faults = run_format(name, range(given.start, given.start + number), given)
        print(f"{name}: {read:,} inputs, {len(faults)} failed, {time.monotonic() - begun:.0f} s", flush=True)
        for which, what in faults[:20]:
            print(f"  #{which}: {what}", flush=True)
        total, failed = total + read, failed + len(faults)
    print(f"{total:,} inputs, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
