"""What `hlvae fit` does at each line of the log."""

import time
from functools import cache
from pathlib import Path
from typing import Any

from hierarchical_lvae.presentation.figures import draw_reconstructions
from hierarchical_lvae.runs import Run

CONTACT_SHEET_EVERY = 300.0  # seconds


class ContactSheets:
    """Redraws figures/reconstructions.png every few minutes during training."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, run: Run, entry: dict[str, Any]) -> None:
        """Draw if enough time has passed."""
        if time.monotonic() - self.last > CONTACT_SHEET_EVERY:
            draw_reconstructions(run)
            self.last = time.monotonic()


def tensorboard() -> list[Any]:
    """Also write the log for TensorBoard, if it is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return []

    @cache
    def writer(out: Path) -> Any:  # created with the first log line: before that, the run directory may not be ours
        return SummaryWriter(str(out / "tensorboard"))

    def watch(run: Run, entry: dict[str, Any]) -> None:
        for name, value in entry.items():
            if name != "step" and value is not None:
                writer(run.directory).add_scalar(name, value, entry["step"])
        writer(run.directory).flush()

    return [watch]
