"""Progress bars. This module alone decides whether they are shown; as in tqdm, `TQDM_DISABLE=1` hides them all."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

_SHOWN = ContextVar("bars are shown", default=os.environ.get("TQDM_DISABLE", "0") in ("", "0"))


def bar(iterable: Iterable[Any] | None = None, desc: str | None = None, **how: Any) -> Any:
    """Create a tqdm progress bar, with tqdm's options; inside `hidden` it is disabled."""
    return tqdm(iterable, desc, disable=not _SHOWN.get(), **how)


def shown() -> bool:
    """Whether progress bars are shown in the current context."""
    return _SHOWN.get()


@contextmanager
def hidden(hide: bool = True) -> Iterator[None]:
    """Show no progress bars inside the `with` block.

    >>> with hidden():
    ...     shown()
    False
    """
    token = _SHOWN.set(_SHOWN.get() and not hide)
    try:
        yield
    finally:
        _SHOWN.reset(token)
