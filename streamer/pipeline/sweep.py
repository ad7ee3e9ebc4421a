"""The sweep as values: where it stands in one part of the store, and whom it must fold in. Pure.

After a publish, somebody must fold in again whoever is neither touched nor cached. Workers share
that through a state in the store, one for each part of it (a server): whoever moves the state from
one cursor to the next has claimed the page between them. Nobody holds a lease, so a worker that
dies after a claim loses its page for this pass. That is why a pass that found anybody behind is
followed by another: the sweep is done when a whole pass found nobody, or no fewer than the one
before it (those whose solve is rejected stay behind for ever).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from struct import Struct
from typing import Final

import orjson

CURSOR_OF_ENDS: Final = "0"
"""Where a pass begins, and what a scan returns when it has seen everybody."""
MAX_PASSES: Final = 20
"""Of one sweep; whatever keeps it from ending, it does not go on for ever."""
_HISTORY: Final = Struct("<3sxHxxQ")
"""Magic and version, number of entries, digest."""
_FEATURES: Final = Struct("<3s13xQI")
"""Magic and version, digest of the history, generation."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Where the sweep of one variant stands in one part of the store.

    Attributes:
        generation: Of the pointer whose model everybody is to get.
        number: Of the pass, from 1.
        cursor: Where the pass goes on.
        n_seen: Users seen in this pass.
        n_behind: Of them, how many were behind.
        n_behind_before: In the pass before; -1 in the first.
        n_found: Found behind in all passes; one of whom nobody took care counts twice.
        n_expected: Users that a pass may see, by the one before or a guess; at least 1.
        started_ms: When the sweep began, epoch milliseconds.
        finished_ms: When it was done; 0 while it is not.
    """

    generation: int
    number: int
    cursor: str
    n_seen: int
    n_behind: int
    n_behind_before: int
    n_found: int
    n_expected: int
    started_ms: int
    finished_ms: int

    @property
    def is_done(self) -> bool:
        """Whether nobody need look again, for a while."""
        return self.finished_ms > 0

    @property
    def progress(self) -> float:
        """The share of the users that were seen in this pass, 0 to 1; 1 when it is done."""
        return 1.0 if self.is_done else min(self.n_seen / self.n_expected, 1.0)


@dataclass(frozen=True, slots=True)
class StoredUsers:
    """Some users as they are stored.

    Attributes:
        cursor: Where to go on; CURSOR_OF_ENDS if that were all.
        user_ids: Whom; a user may come twice in a pass, and everybody comes at least once who is
            there all the time.
        histories: The value of each, None where it has gone.
        features: Of one variant, None where there are none.
    """

    cursor: str
    user_ids: Sequence[str]
    histories: Sequence[bytes | None]
    features: Sequence[bytes | None]


def begun(generation: int, n_expected: int, now_ms: int) -> Sweep:
    """Return a sweep that has seen nobody yet."""
    return Sweep(generation, 1, CURSOR_OF_ENDS, 0, 0, -1, 0, max(n_expected, 1), now_ms, 0)


def advanced(sweep: Sweep, cursor: str, n_seen: int, n_behind: int, now_ms: int) -> Sweep:
    """Return where a sweep stands after a page.

    Args:
        sweep: Before it.
        cursor: Where the page ended.
        n_seen: Users of the page.
        n_behind: Of them, how many were behind.
        now_ms: Epoch milliseconds.
    """
    seen, behind = sweep.n_seen + n_seen, sweep.n_behind + n_behind
    after = replace(
        sweep, cursor=cursor, n_seen=seen, n_behind=behind, n_found=sweep.n_found + n_behind
    )
    if cursor != CURSOR_OF_ENDS:
        return after
    is_in_vain = 0 <= sweep.n_behind_before <= behind or sweep.number >= MAX_PASSES
    if behind == 0 or is_in_vain:
        return replace(after, finished_ms=now_ms)
    return replace(
        after,
        number=sweep.number + 1,
        n_seen=0,
        n_behind=0,
        n_behind_before=behind,
        n_expected=max(seen, 1),
    )


def progress_of(sweeps: Iterable[Sweep]) -> float:
    """Return the share of users that were seen in the present passes of some parts, 0 to 1."""
    weights = [(sweep.progress, sweep.n_expected) for sweep in sweeps]
    n_expected = sum(weight for _, weight in weights)
    return sum(share * weight for share, weight in weights) / n_expected if n_expected else 0.0


def encode_sweep(sweep: Sweep) -> bytes:
    """Return the value in the store: JSON, the names of the attributes."""
    return orjson.dumps(asdict(sweep))


def decode_sweep(value: bytes | None) -> Sweep | None:
    """Return the state of a value; None if there is none, or none that we know."""
    try:
        found = orjson.loads(value or b"")
        known = {field.name: found[field.name] for field in fields(Sweep)}
    except (orjson.JSONDecodeError, TypeError, KeyError):
        return None
    is_number = all(type(known[name]) is int for name in known if name != "cursor")
    if not is_number or type(known["cursor"]) is not str or known["n_expected"] < 1:
        return None
    return Sweep(**known)


def rows_behind(users: StoredUsers, generation: int) -> list[int]:
    """Return who has no features of this generation and of their present history.

    Not among them: who has no entry, features of a newer generation, and values of unknown form,
    which wait for an event of their user.

    Args:
        users: A page.
        generation: The live one.
    """
    pairs = zip(users.histories, users.features, strict=True)
    return [row for row, pair in enumerate(pairs) if _is_behind(*pair, generation)]


def _is_behind(history: bytes | None, features: bytes | None, generation: int) -> bool:
    if history is None or len(history) < _HISTORY.size:
        return False
    magic, count, digest = _HISTORY.unpack_from(history)
    if magic != b"SH\1" or count == 0:
        return False
    if features is None:
        return True
    if len(features) < _FEATURES.size:
        return False
    magic, digest_then, generation_then = _FEATURES.unpack_from(features)
    if magic != b"SF\1" or generation_then > generation:
        return False
    return bool(generation_then < generation or digest_then != digest)
