"""The Lua scripts that stand beside this file."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple


class Script(NamedTuple):
    """A script, and the hash by which Redis knows it once it was sent."""

    source: str
    sha: str


def load_script(name: str) -> Script:
    """Return ``NAME.lua``."""
    source = files("streamer.stores").joinpath(f"{name}.lua").read_text("utf-8")
    return Script(source, sha1(source.encode(), usedforsecurity=False).hexdigest())
