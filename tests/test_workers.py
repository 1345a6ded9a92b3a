"""Processes that compute the runs of a table, and how they end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from hierarchical_lvae.runs.directory import read_log, read_state

TABLE = """
from pathlib import Path
from hierarchical_lvae.analysis import ScoreSettings
from hierarchical_lvae.experiments import Row, Table, Workers, run_table

rows = Row("plain", {"alpha": 0.0}, (0.1,)), Row("local", {"alpha": 1.0}, (0.2,))
table = Table("a table", {"dataset": "digits", "neighbourhood": "noise"}, {"gap": ("mig", "mig")}, rows)
few = {"steps": 1_000_000, "batch": 2, "num_neighbours": 2, "latent_dim": 3}
list(run_table(table, Path(OUT), "quick", workers=Workers(jobs=2), settings=ScoreSettings(), **few))
"""


def test_ctrl_c_leaves_a_checkpoint_of_each_run(tmp_path):
    """A terminal sends SIGINT to the whole group of processes."""
    script = tmp_path / "table.py"
    script.write_text(f"OUT = {str(tmp_path)!r}\n{TABLE}")
    runs = [tmp_path / "plain-0", tmp_path / "local-0"]
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        wait_until(lambda: all(read_log(run) for run in runs), process)
        os.killpg(process.pid, signal.SIGINT)
        output = process.communicate(timeout=120)
    for run in runs:
        state = read_state(run)
        assert (state.status, state.step >= 50) == ("interrupted", True), output


def wait_until(condition, process):
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_worker_ends_with_its_parent():
    """However the parent ended; a fit would see SIGTERM, and write its checkpoint."""
    worker = (
        "import os, time; from hierarchical_lvae.experiments import workers; workers._end_with({}); time.sleep(600)"
    )
    parent = f"""
import subprocess, sys, os, time
child = subprocess.Popen([sys.executable, "-c", {worker!r}.format(os.getpid())])
print(child.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 60
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not is_running(child)


def is_running(pid):
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
