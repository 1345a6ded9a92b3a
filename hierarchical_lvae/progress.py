"""Progress bars. This module alone decides whether they are shown; as in tqdm, `TQDM_DISABLE=1` hides them all.

In a log file, each update adds to the file, so there bars are updated rarely, unless `TQDM_MININTERVAL` is set.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

_SHOWN = ContextVar("bars are shown", default=os.environ.get("TQDM_DISABLE", "0") in ("", "0"))

RARELY = 30.0
"""Seconds between two updates in a log file."""


def bar(iterable: Iterable[Any] | None = None, desc: str | None = None, **how: Any) -> Any:
    """Create a tqdm progress bar, with tqdm's options; inside `hidden` it is disabled."""
    if not live():
        how = {"mininterval": RARELY, "maxinterval": RARELY, **how}
    return tqdm(iterable, desc, disable=not _SHOWN.get(), **how)


def shown() -> bool:
    """Whether progress bars are shown in the current context."""
    return _SHOWN.get()


def live() -> bool:
    """Whether bars are updated often: in a terminal, in an interactive session, or as `TQDM_MININTERVAL` says."""
    return "TQDM_MININTERVAL" in os.environ or hasattr(sys, "ps1") or getattr(sys.stderr, "isatty", bool)()


@contextmanager
def hidden() -> Iterator[None]:
    """Show no progress bars inside the `with` block.

    >>> with hidden():
    ...     shown()
    False
    """
    token = _SHOWN.set(False)
    try:
        yield
    finally:
        _SHOWN.reset(token)
