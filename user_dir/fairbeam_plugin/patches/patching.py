"""How one function of fairseq is replaced by another."""

import functools
import inspect
from collections.abc import Callable
from typing import Any


def mend(owner: Any, name: str, mended: Callable[..., Any]) -> None:
    """Replace ``owner.name`` by ``mended``, which is called with the stock function and then its arguments.

    Doing it twice has no effect; two different mends of one function wrap each other. fairseq must look
    ``owner.name`` up when it calls it: a name that another module imported by value keeps the stock function.
    """
    stock = getattr(owner, name)
    done = getattr(stock, "fairbeam_mends", ())
    label = f"{mended.__module__}.{mended.__qualname__}"
    if label in done:
        return

    @functools.wraps(stock)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        return mended(stock, *args, **kwargs)

    replacement.fairbeam_mends = (*done, label)  # type: ignore[attr-defined]
    is_static = isinstance(inspect.getattr_static(owner, name), staticmethod)
    setattr(owner, name, staticmethod(replacement) if is_static else replacement)
