"""Who takes part: names as in the report, and how each is started."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks.processes import PEERS, Job, Program, Workers

Start = Callable[[Job], "Program | Workers"]


def _program(module: str, *arguments: str, is_peer: bool = False) -> Start:
    python = PEERS if is_peer else Path(sys.executable)
    return lambda job: Program(module, arguments, job, python)


CONTENDERS: Final[Mapping[str, Start]] = {
    "streamer": Workers,
    "floor": _program("floor"),
    "naive": _program("naive"),
    "naive_background": _program("naive", "background"),
    "faust": _program("faust_take", is_peer=True),
    "quix": _program("quix_sink", is_peer=True),
    "bytewax": _program("bytewax_sink", is_peer=True),
}
