"""The script for a GPU, rehearsed without one, so that it runs the first time it meets a card."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks/gpu"


def test_the_script_is_rehearsed(tmp_path):
    fits = (SCRIPT / "fits.jsonl").read_text().splitlines()
    (tmp_path / "fits.jsonl").write_text("\n".join([fits[0], fits[2]]))
    command = [sys.executable, str(SCRIPT), str(tmp_path / "out"), "--device", "cpu", "--small", "--workers", "2"]
    done = subprocess.run(
        [*command, "--seconds", "3000", "--fits", str(tmp_path / "fits.jsonl")], capture_output=True, text=True
    )
    report = (tmp_path / "out/report.txt").read_text(encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "FAILED" not in report
    assert done.stdout.count("ended: 0") == 7  # five parts, two workers
    noted = [json.loads(line) for path in (tmp_path / "out").glob("*.jsonl") for line in path.read_text().splitlines()]
    values = {line["name"]: line["value"] for line in noted}
    assert max(values["K=3: float64, in groups"]) < 1e-12
    assert values["skipped: finite before, then, and after"] == [True, False, True]
    assert values["skipped: the weights are those before"] == [0.0, 0.0]
    assert min(values["skipped: the next step changes the weights"]) > 0
    assert values["Table 4, deterministic algorithms: two graphs give the same bytes"]
    assert values["not finite: the weights are the last good ones"] == [0.0, 0.0]
    assert values["not finite: why"].endswith("in the guide)")
    assert values["resumed to the same bytes"]
    assert values["deterministic: resumed to the same bytes"]
    assert values["quick: compiled against eager, both in TF32"] == [0.0, 0.0, 0.0]
    for name in ("alpha-0.2-seed-0", "alpha-0-seed-0"):
        assert (tmp_path / "out/runs" / name / "model.safetensors").exists()
