"""How kernels are compiled: by Numba, once, and kept on disk for the next process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")

ORDER_IS_FREE: Final = {"reassoc", "contract", "nsz"}
"""A sum may be taken in any order, so it runs in vector registers; NaN and infinity keep their
meaning, because checks rely on it."""


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function of arrays and numbers at its first call with their types.

    The result is kept beside the source, else in the user's cache folder. Where neither can be
    written, every process compiles anew, which takes some seconds before its first batch.
    """
    options: dict[str, Any] = {
        "fastmath": ORDER_IS_FREE,
        "error_model": "numpy",
        "nogil": True,  # other threads go on: the loop, while a model is prepared
    }
    try:
        kernel = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # "cannot cache function": there is no such folder
        kernel = numba.njit(**options)(function)
    return cast("Callable[P, R]", kernel)
