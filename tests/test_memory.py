"""Freed memory is kept, where the C library knows how to."""

import subprocess
import sys

import pytest

CODE = """
import resource, torch
from hierarchical_lvae.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
kept = keep_freed_memory()
faults()
print(kept, first, faults())
"""


def test_blocks_are_used_again():
    output = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout
    kept, before, after = output.split()
    if kept == "False":
        pytest.skip("no glibc")
    assert int(after) < int(before) / 5
