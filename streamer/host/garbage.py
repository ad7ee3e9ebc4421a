"""Python's collector of cycles, for a process that makes and drops objects by the million."""

from __future__ import annotations

import gc
from typing import Final

YOUNG_OBJECTS: Final = 50_000
"""More new containers than old ones dropped before the collector looks. A batch has some thousand,
and reference counts take them away; what is left is the rare cycle of an exception."""


def settle() -> None:
    """Leave out of every collection what is there now, and collect less often.

    Call it once, when modules are loaded and kernels compiled: with Numba there are some hundred
    thousand objects that live as long as the process, and going through them time and again took
    more than half of a worker's processor time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)
