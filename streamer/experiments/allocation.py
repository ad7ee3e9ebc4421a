"""From a user to a cell: one documented hash, the same in every language.

``slot = first 8 bytes of SHA-256(salt ":" user_id), little-endian, mod 10,000``, and a cell owns
slots. SHA-256, because every language has it in its standard library; in Python it is as fast as
BLAKE2b. A salt holds no colon, so no two pairs of salt and user are the same bytes. 2⁶⁴ is no
multiple of 10,000: the slots up to 1,615 are more likely by 5·10⁻¹⁶ of their share.

**Cells own slots, not shares of a sum.** A cell uses the first `share` of the slots it owns, in the
order they are written. So raising a share adds slots, and the users in them come from nowhere else:
nobody moves between cells. docs/reference/allocation.md has test vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

N_SLOTS: Final = 10_000
UNALLOCATED: Final = -1
"""In a table of slots, and where a user is in no cell."""

_DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True, order=True)
class SlotRange:
    """Slots from `first` to `last`, both included, 0 to 9,999."""

    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a cell changes; None leaves it as it is.

    Attributes:
        variant: Whose features are served: a learner and a model.
        blend_half_life_s: τ, seconds of idling after which `recent` counts half; > 0.
        row_order: How a page's rows are ordered; a name that the service understands.
    """

    variant: str | None = None
    blend_half_life_s: float | None = None
    row_order: str | None = None


NO_PARAMETERS: Final = Parameters()


@dataclass(frozen=True, slots=True)
class Cell:
    """One arm of an experiment.

    Attributes:
        name: Within its experiment.
        share: How many of its slots are in use, the first ones; of 10,000.
        slots: What it owns, in the order in which a growing share takes them.
        parameters: What its users get.
    """

    name: str
    share: int
    slots: tuple[SlotRange, ...]
    parameters: Parameters = NO_PARAMETERS


@dataclass(frozen=True, slots=True)
class Experiment:
    """A trial: its cells share the users of a layer with the layer's other experiments.

    Attributes:
        name: Unique in the catalog.
        layer: In which a user is in one experiment at most.
        salt: The layer's: layers are independent because their salts differ.
        cells: In the order of the file.
        start_ms: From when outcomes count, epoch milliseconds, a whole second; None keeps none.
    """

    name: str
    layer: str
    salt: str
    cells: tuple[Cell, ...]
    start_ms: int | None = None


def slot_of(user_id: str, salt: str) -> int:
    """Return a user's slot, 0 to 9,999; also of an id without UTF-8, which no event can carry."""
    digest = sha256(f"{salt}:{user_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "little") % N_SLOTS


def slots_of(user_ids: Sequence[str], salt: str) -> NDArray[np.int64]:
    """Return each user's slot, shape (n_users,); as `slot_of`, at about half its cost."""
    salted = sha256(f"{salt}:".encode())
    digests = bytearray()
    for user_id in user_ids:
        hashed = salted.copy()
        hashed.update(user_id.encode("utf-8", "surrogatepass"))
        digests += hashed.digest()
    words = np.frombuffer(digests, "<u8").reshape(-1, _DIGEST_BYTES // 8)[:, 0]
    return (words % np.uint64(N_SLOTS)).astype(np.int64)


def used_slots(cell: Cell) -> NDArray[np.int64]:
    """Return the slots in use, shape (share,), in the order in which the share grew."""
    owned = (slot for part in cell.slots for slot in range(part.first, part.last + 1))
    return np.fromiter(islice(owned, cell.share), np.int64)


def slot_table(experiment: Experiment) -> NDArray[np.int64]:
    """Return the index of the cell that uses each slot, shape (10,000,); else UNALLOCATED."""
    table = np.full(N_SLOTS, UNALLOCATED, np.int64)
    for index, cell in enumerate(experiment.cells):
        table[used_slots(cell)] = index
    return table


def allocate(user_id: str, experiment: Experiment) -> Cell | None:
    """Return the user's cell, or None for whoever is not in the experiment."""
    slot = slot_of(user_id, experiment.salt)
    for cell in experiment.cells:
        n_left = cell.share
        for part in cell.slots:
            if part.first <= slot < part.first + min(n_left, len(part)):
                return cell
            n_left = max(0, n_left - len(part))
    return None


def allocate_many(user_ids: Sequence[str], experiment: Experiment) -> NDArray[np.int64]:
    """Return the index of each user's cell, shape (n_users,); UNALLOCATED for the others."""
    cells: NDArray[np.int64] = slot_table(experiment)[slots_of(user_ids, experiment.salt)]
    return cells
