"""Progress bars: this module alone decides whether they are shown. `TQDM_DISABLE=1` hides all of them, as in tqdm."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

_SHOWN = ContextVar("bars are shown", default=os.environ.get("TQDM_DISABLE", "0") in ("", "0"))


def bar(iterable: Iterable[Any] | None = None, desc: str | None = None, **how: Any) -> Any:
    """A progress bar of tqdm, with its options, unless they are `hidden` here."""
    return tqdm(iterable, desc, disable=not _SHOWN.get(), **how)


def shown() -> bool:
    """Whether bars are shown here."""
    return _SHOWN.get()


@contextmanager
def hidden(hide: bool = True) -> Iterator[None]:
    """Show no progress bars within.

    >>> with hidden():
    ...     shown()
    False
    """
    token = _SHOWN.set(_SHOWN.get() and not hide)
    try:
        yield
    finally:
        _SHOWN.reset(token)
