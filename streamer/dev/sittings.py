"""What one viewer does in one sitting: browse, watch, give up or finish, rate, save for later.

A sitting is three to seven picks. A pick shows a row of titles (impressions), perhaps a detail page
and a trailer, then a play with heartbeats and a stop, then perhaps a thumb or a change of the
list. Titles that fit the mood are mostly watched to the end, misfits are left within a minute.
People pick what they have not seen; the one thing that comes back is a title left half-way, which
the next sitting resumes under its old ``play_id``, with ``watched_s`` counting on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from streamer.dev.catalog import GENRES, STRANDS_PER_GENRE, Catalog
from streamer.dev.viewers import SAME_MOOD_SHARE, Audience, Draw, Mood, pick_mood_strand

EVENTS_PER_SITTING: Final = 42.0
"""Mean number of events of a sitting, as simulated; a test holds it to that."""
SITTING_S: Final = 9_400.0
"""Mean length of a sitting in seconds of event time, likewise."""

HEARTBEAT_S: Final = 600
MAX_HEARTBEATS: Final = 4
# Draws for an unseen title before a sitting repeats one: half of them fall into the other half.
MAX_TRIES: Final = 16
MAX_THUMBED: Final = 8

Context = dict[str, str | int]


class Source(NamedTuple):
    """Where a pick came from, and how likely it then is to be liked."""

    row_id: str
    liked_share: float


MOOD: Final = Source("because-you-watched", 0.88)
TASTE: Final = Source("top-picks", 0.55)
POPULAR: Final = Source("trending-now", 0.20)
SAVED: Final = Source("my-list", 0.70)
RESUMED: Final = Source("continue-watching", 0.95)


class Happening(NamedTuple):
    """One event before it has a viewer, a date and an id.

    Attributes:
        offset_s: Since the beginning of the sitting; never decreases within one.
        kind: The event's ``type``.
        title: Title row.
        play_id: Of play events, else empty.
        watched_s: Of ``play_progress`` and ``play_stop``, else -1.
        context: Where it was seen, for the events that carry it.
    """

    offset_s: float
    kind: str
    title: int
    play_id: str = ""
    watched_s: int = -1
    context: Context | None = None


class Viewing(NamedTuple):
    """One title being watched, perhaps resumed."""

    play_id: str
    title: int
    watched_s: int


@dataclass(slots=True)
class Memory:
    """What a viewer brings from earlier sittings; bounded by the number of titles."""

    mood: Mood | None = None
    seen: set[int] = field(default_factory=set)
    my_list: list[int] = field(default_factory=list)
    thumbed: list[int] = field(default_factory=list)
    unfinished: Viewing | None = None


class Script:
    """The sitting as it is being written."""

    __slots__ = ("happenings", "now_s")

    def __init__(self) -> None:
        self.happenings: list[Happening] = []
        self.now_s = 0.0

    def add(self, wait_s: float, kind: str, title: int, context: Context | None = None) -> None:
        """Append a browse event `wait_s` after the last event."""
        self.now_s += wait_s
        self.happenings.append(Happening(self.now_s, kind, title, context=context))

    def add_play(
        self, wait_s: float, kind: str, viewing: Viewing, context: Context | None = None
    ) -> None:
        """Append a play event `wait_s` after the last event; a start has no ``watched_s``."""
        self.now_s += wait_s
        watched_s = -1 if kind == "play_start" else viewing.watched_s
        self.happenings.append(
            Happening(self.now_s, kind, viewing.title, viewing.play_id, watched_s, context)
        )


class SittingWriter:
    """Writes sittings one after the other; equal draws give equal sittings.

    Args:
        catalog: What there is to watch.
        audience: Who watches.
        draw: The only source of chance.
        run_id: Makes ids unique among logs.
        half: 0 or 1. A viewer picks from one half of the titles, and each viewer's halves differ.
            So a training log of half 0 and live traffic of half 1 need not know each other, and
            still nobody picks live what they have already watched in the log.
    """

    def __init__(
        self, catalog: Catalog, audience: Audience, draw: Draw, run_id: str, half: int
    ) -> None:
        self._catalog = catalog
        self._audience = audience
        self._draw = draw
        self._run_id = run_id
        self._half = half
        self._memories: dict[int, Memory] = {}
        self._n_pages = 0
        self._n_plays = 0

    def write(self, viewer: int) -> list[Happening]:
        """Return the viewer's next sitting in order of time; never empty."""
        draw, script = self._draw, Script()
        memory = self._memories.setdefault(viewer, Memory())
        if memory.mood is None or draw() >= SAME_MOOD_SHARE:
            memory.mood = self._audience.draw_mood(viewer, draw)
        if memory.unfinished is not None:
            viewing, memory.unfinished = memory.unfinished, None
            context = self._page(RESUMED) | {"position": 0}
            self._watch(viewing, memory, script, context, is_liked=True)
        for _ in range(3 + int(draw() * 5)):
            title, source = self._choose(viewer, memory)
            context = self._browse(title, source, memory, script)
            memory.seen.add(title)
            self._n_plays += 1
            viewing = Viewing(f"p-{self._run_id}{self._n_plays:06x}", title, 0)
            is_liked = draw() < source.liked_share
            viewing = self._watch(viewing, memory, script, context, is_liked=is_liked)
        # Only the last title of a sitting can be left for the next one.
        duration_s = self._catalog.duration_s[viewing.title]
        if 0.3 < viewing.watched_s / duration_s < 0.9 and draw() < 0.5:
            memory.unfinished = viewing
        return script.happenings

    def _choose(self, viewer: int, memory: Memory) -> tuple[int, Source]:
        """Return an unseen title, and where it came from."""
        draw, audience, mood = self._draw, self._audience, memory.mood
        assert mood is not None
        if memory.my_list and draw() < 0.05:
            return memory.my_list[0], SAVED
        strands, chance = self._catalog.strands, draw()
        pick: Callable[[], int]
        if chance < 0.90:
            source, pick = MOOD, lambda: strands[pick_mood_strand(mood, draw)].pick(draw())
        elif chance < 0.95:
            source, pick = TASTE, lambda: strands[audience.pick_strand(viewer, draw)].pick(draw())
        else:
            source, pick = POPULAR, lambda: self._catalog.everything.pick(draw())
        for _ in range(MAX_TRIES):
            title = pick()
            if title not in memory.seen and half_of(viewer, title) == self._half:
                return title, source
        for _ in range(MAX_TRIES):
            title = self._catalog.everything.pick(draw())
            if title not in memory.seen and half_of(viewer, title) == self._half:
                return title, POPULAR
        return title, POPULAR

    def _page(self, source: Source) -> Context:
        self._n_pages += 1
        return {
            "surface": "home" if self._draw() < 0.8 else "browse",
            "row_id": source.row_id,
            "request_id": f"r-{self._run_id}{self._n_pages:06x}",
        }

    def _browse(self, title: int, source: Source, memory: Memory, script: Script) -> Context:
        """Show a row that holds `title`; return the context of its place."""
        draw, catalog = self._draw, self._catalog
        page = self._page(source)
        if source is TASTE:
            page["row_id"] = GENRES[int(catalog.strand_of[title]) // STRANDS_PER_GENRE]
        shelf = (
            catalog.everything if source is POPULAR else catalog.strands[catalog.strand_of[title]]
        )
        n_shown = 2 + int(draw() * 4)
        position = int(draw() * n_shown)
        script.now_s += 15.0 + 60.0 * draw()
        for place in range(n_shown):
            shown = title if place == position else shelf.pick(draw())
            script.add(0.2, "impression", shown, page | {"position": place})
        context = page | {"position": position}
        if draw() < 0.6:
            script.add(3.0 + 20.0 * draw(), "detail_view", title, context)
        if draw() < 0.15:
            script.add(5.0 + 10.0 * draw(), "trailer_view", title, context)
        if shown != title and shown not in memory.seen and draw() < 0.08:
            script.add(4.0 + 10.0 * draw(), "my_list_add", shown, page | {"position": n_shown - 1})
            memory.my_list.append(shown)
        return context

    def _watch(
        self, viewing: Viewing, memory: Memory, script: Script, context: Context, *, is_liked: bool
    ) -> Viewing:
        """Play from where `viewing` stands, with heartbeats; return where it stopped."""
        draw, title = self._draw, viewing.title
        duration_s = self._catalog.duration_s[title]
        if is_liked:
            share = 0.92 + 0.08 * draw() if draw() < 0.8 else 0.35 + 0.5 * draw()
            stop_s = int(share * duration_s)
        else:
            stop_s = int(8 + 50 * draw() if draw() < 0.75 else 120 + 480 * draw())
        stop_s = max(stop_s, viewing.watched_s + 5)
        stop_s = min(stop_s, duration_s)
        script.add_play(1.0 + 4.0 * draw(), "play_start", viewing, context)
        step_s = max(HEARTBEAT_S, duration_s // MAX_HEARTBEATS)
        for watched_s in range(step_s, stop_s, step_s):
            if watched_s > viewing.watched_s:
                wait_s = watched_s - viewing.watched_s
                viewing = viewing._replace(watched_s=watched_s)
                script.add_play(wait_s, "play_progress", viewing)
        wait_s = stop_s - viewing.watched_s
        viewing = viewing._replace(watched_s=stop_s)
        script.add_play(wait_s, "play_stop", viewing)
        self._react(viewing, memory, script, is_liked=is_liked)
        return viewing

    def _react(self, viewing: Viewing, memory: Memory, script: Script, *, is_liked: bool) -> None:
        draw, title = self._draw, viewing.title
        if draw() < 0.1:
            script.add(2.0 + 5.0 * draw(), "thumb_up" if is_liked else "thumb_down", title)
            memory.thumbed = [*memory.thumbed[1 - MAX_THUMBED :], title]
        elif memory.thumbed and draw() < 0.01:
            script.add(10.0, "thumb_clear", memory.thumbed.pop(0))
        if title in memory.my_list:
            script.add(2.0 + 5.0 * draw(), "my_list_remove", title)
            memory.my_list.remove(title)


def half_of(viewer: int, title: int) -> int:
    """Return 0 or 1: the half of the catalogue that `title` is in for this viewer."""
    mixed = (viewer * 0x9E3779B1 ^ title * 0x85EBCA77) & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 15) * 0x2C1B3C6D & 0xFFFFFFFF
    return mixed >> 16 & 1
