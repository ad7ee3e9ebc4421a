"""How much an interaction counts: strengths, decided by the model and not by the history."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from streamer.events import FULL_COMPLETION, Kind, MyList, Thumb
from streamer.history import kinds, values


@dataclass(frozen=True, slots=True)
class Signals:
    """Strengths of the kinds of interactions, none of them negative.

    Attributes:
        play_complete: Strength of a play from `complete_from` on.
        complete_from: Completion, in 0 to 1, from which a play counts as complete.
        play_least: Least strength of a play; in between it is completion squared.
        brief_play: Strength of a play that was abandoned at once.
        trailer_view: Strength of a watched trailer.
        detail_view: Strength of an opened detail page.
        my_list_add: Strength of a title on the viewer's list.
        my_list_remove: Strength of a title taken off it.
        thumb_up: Strength of a thumbs-up.
        thumb_down: Strength of a thumbs-down, whose target is 0.
        thumb_clear: Strength of a withdrawn thumb.
    """

    play_complete: float = 1.0
    complete_from: float = 0.9
    play_least: float = 0.1
    brief_play: float = 0.05
    trailer_view: float = 0.3
    detail_view: float = 0.15
    my_list_add: float = 0.6
    my_list_remove: float = 0.0
    thumb_up: float = 1.5
    thumb_down: float = 0.3
    thumb_clear: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            number = getattr(self, field.name)
            if not (np.isfinite(number) and number >= 0):
                raise ValueError(f"signals.{field.name} is {number}; a strength is finite and >= 0")

    def table(self) -> NDArray[np.float64]:
        """Return the strength of every (kind, value), float64, shape (256, 256)."""
        table = np.zeros((256, 256))
        completion = np.arange(256) / FULL_COMPLETION
        table[Kind.PLAY] = np.where(
            completion >= self.complete_from,
            self.play_complete,
            np.maximum(self.play_least, completion**2),
        )
        table[Kind.BRIEF_PLAY] = self.brief_play
        table[Kind.TRAILER_VIEW] = self.trailer_view
        table[Kind.DETAIL_VIEW] = self.detail_view
        table[Kind.MY_LIST, MyList.REMOVED] = self.my_list_remove
        table[Kind.MY_LIST, MyList.ADDED] = self.my_list_add
        table[Kind.THUMB, Thumb.CLEARED] = self.thumb_clear
        table[Kind.THUMB, Thumb.DOWN] = self.thumb_down
        table[Kind.THUMB, Thumb.UP] = self.thumb_up
        return table


def strengths(words: NDArray[np.uint64], table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the strength of each entry, float64, same shape; 0 in an empty slot."""
    found: NDArray[np.float64] = table[kinds(words), values(words)]
    return found
