"""Copy a finished run into the package as a pretrained run: ship.py RUN NAME.

Its description and its command belong in `hierarchical_lvae/runs/__init__.py`.
"""

import json
import shutil
import sys
from pathlib import Path

from hierarchical_lvae.runs import read_options
from hierarchical_lvae.runs.directory import LOG, MODEL, OPTIONS, STATE, read_state
from hierarchical_lvae.runs.pretrained import PLACE


def main() -> None:
    run, out = Path(sys.argv[1]), PLACE / sys.argv[2]
    if read_state(run).status != "finished":
        raise SystemExit(f"{run} is not finished: finish it with hlvae fit --resume {run}")
    out.mkdir(parents=True, exist_ok=True)
    for file in (LOG, MODEL, STATE):
        shutil.copyfile(run / file, out / file)
    saved = json.loads((run / OPTIONS).read_text(encoding="utf-8"))
    here = {"data_dir": None, "device": "cpu"}  # it loads on any machine
    here["preset"] = read_options(run).preset  # by the current presets
    (out / OPTIONS).write_text(json.dumps(saved | here, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
