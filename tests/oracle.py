"""What the design says, once more, in dicts and loops: the judge of the fast code.

Written from the design alone, without the package and importing nothing of it; slow and plain on
purpose. Where this file and the package disagree, one of them misreads the design. Events become
verdicts, the accepted ones a `State`, and a `State` becomes bytes and vectors.
"""

import calendar
import hashlib
import json
import math
import re
import struct
import sys
import zlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np

U64 = (1 << 64) - 1

KINDS = {
    "play": 1,
    "brief_play": 2,
    "detail_view": 3,
    "trailer_view": 4,
    "my_list": 5,
    "thumb": 6,
}
PLAY, BRIEF_PLAY, DETAIL_VIEW, TRAILER_VIEW, MY_LIST, THUMB = range(1, 7)
GROUPS = (
    ((PLAY, BRIEF_PLAY), 30),
    ((THUMB,), 10),
    ((MY_LIST,), 5),
    ((DETAIL_VIEW, TRAILER_VIEW), 10),
)
MAX_ENTRIES = sum(capacity for _, capacity in GROUPS)

MAX_VALUE_BYTES = 64 * 1024
MAX_ID_BYTES = 128
MAX_DEPTH = 1024
AHEAD_MS = 5 * 60 * 1000
EARLIEST_MS = calendar.timegm((2000, 1, 1, 0, 0, 0)) * 1000
LATEST_MS = (1 << 48) - 1  # what the word has room for

# --- events ----------------------------------------------------------------------------------

FIXED = {
    "detail_view": (DETAIL_VIEW, 0),
    "trailer_view": (TRAILER_VIEW, 0),
    "my_list_add": (MY_LIST, 1),
    "my_list_remove": (MY_LIST, 0),
    "thumb_up": (THUMB, 2),
    "thumb_down": (THUMB, 1),
    "thumb_clear": (THUMB, 0),
}
PLAYED = ("play_progress", "play_stop")
SILENT = ("play_start", "impression")
TYPES = (*PLAYED, *SILENT, *FIXED, "forget")


class Interaction(NamedTuple):
    item_key: int
    kind: int
    event_time_ms: int
    value: int

    @property
    def word(self):
        return word(self.event_time_ms, self.value, self.kind)


class Accepted(NamedTuple):
    """An accepted event; `interaction` and `forgotten_before_ms` are None where it has none."""

    user_id: str
    type: str
    interaction: Interaction | None = None
    forgotten_before_ms: int | None = None


class RefusedError(ValueError):
    """The event is a dead letter."""


def verdict(value, record_time_ms):
    """Return the `Accepted` event of one record's value, or None if it is a dead letter."""
    try:
        return judge(value, record_time_ms)
    except RefusedError:
        return None


def judge(value, record_time_ms):
    event = parse_object(value)
    event_type = event.get("type")
    if not isinstance(event_type, str) or event_type not in TYPES:
        raise RefusedError("type")
    user_id = checked_id(event.get("user_id"))
    event_time_ms = checked_time(event.get("event_time"), record_time_ms)
    if event_type == "forget":
        return Accepted(user_id, event_type, None, min(record_time_ms + AHEAD_MS, LATEST_MS))
    item_id = checked_id(event.get("item_id"))
    if event_type in SILENT:
        return Accepted(user_id, event_type)
    if event_type in PLAYED:
        classified = classify_play(event_type, event.get("watched_s"), event.get("duration_s"))
        if classified is None:
            return Accepted(user_id, event_type)
    else:
        classified = FIXED[event_type]
    kind, entry_value = classified
    interaction = Interaction(item_key(item_id), kind, event_time_ms, entry_value)
    return Accepted(user_id, event_type, interaction)


def parse_object(value):
    """Return the JSON object of a value: strict UTF-8, finite numbers, no half characters."""
    if not value or len(value) > MAX_VALUE_BYTES:
        raise RefusedError("size")
    try:
        text = value.decode("utf-8")
        if text.count("[") + text.count("{") > MAX_DEPTH and depth(text) > MAX_DEPTH:
            raise RefusedError("depth")
        with room_to_recurse():
            event = json.loads(text, parse_constant=refuse, parse_float=finite, parse_int=whole)
        if "\\u" in text:  # half a character does not encode, also where a later field replaces it
            for literal in STRING.findall(text):
                json.loads(literal).encode("utf-8")
    except ValueError as error:
        raise RefusedError("json") from error
    if not isinstance(event, dict):
        raise RefusedError("object")
    return event


STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
BRACKETS = re.compile(STRING.pattern + r"|[\[{]|[\]}]", re.DOTALL)


def depth(text):
    """Return how many arrays and objects are open at once, at most, in well-formed JSON."""
    steps = ({"[": 1, "{": 1, "]": -1, "}": -1}.get(each[0], 0) for each in BRACKETS.findall(text))
    return max(accumulate(steps), default=0)


@contextmanager
def room_to_recurse():
    """The parser recurses once a level, and whoever calls may be deep in a stack already."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + 10 * MAX_DEPTH)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def refuse(literal):
    raise RefusedError(literal)


def finite(digits):
    number = float(digits)
    if not math.isfinite(number):
        raise RefusedError(digits)
    return number


def whole(digits):
    """A number without fraction; what 64 bits cannot hold is only known as a float."""
    sign, magnitude = digits.startswith("-"), digits.lstrip("-")
    if len(magnitude) > 20:
        return finite(digits)
    number = int(digits)
    limit = 1 << 63 if sign else U64
    return number if abs(number) <= limit else finite(digits)


def checked_id(text):
    if not isinstance(text, str) or not 1 <= len(text.encode("utf-8")) <= MAX_ID_BYTES:
        raise RefusedError("id")
    for character in text:
        if ord(character) < 0x20 or 0x7F <= ord(character) <= 0x9F:
            raise RefusedError("control character")
    return text


def checked_time(event_time, record_time_ms):
    if isinstance(event_time, str):
        event_time_ms = rfc3339_ms(event_time)
    elif isinstance(event_time, int) and not isinstance(event_time, bool):
        event_time_ms = event_time
    else:
        raise RefusedError("event_time")
    if not EARLIEST_MS <= event_time_ms <= min(record_time_ms + AHEAD_MS, LATEST_MS):
        raise RefusedError("event_time out of range")
    return event_time_ms


RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)


def rfc3339_ms(text):
    """Return epoch milliseconds of the grammar of RFC 3339, section 5.6; finer digits are cut.

    Also its blank instead of the T, and a second 60 anywhere: no pure function knows which leap
    seconds were announced. It is the instant after second 59, as in POSIX time.
    """
    match = RFC3339.fullmatch(text)
    if match is None:
        raise RefusedError("RFC 3339")
    year, month, day, hour, minute, second = (int(match[group]) for group in range(1, 7))
    offset_hour, offset_minute = int(match[9] or 0), int(match[10] or 0)
    if not (1 <= month <= 12 and 1 <= day <= days_in_month(year, month)):
        raise RefusedError("date")
    if hour > 23 or minute > 59 or second > 60 or offset_hour > 23 or offset_minute > 59:
        raise RefusedError("time")
    offset_minutes = offset_hour * 60 + offset_minute
    if match[8] == "-":
        offset_minutes = -offset_minutes
    minutes = (days_since_epoch(year, month, day) * 24 + hour) * 60 + minute - offset_minutes
    milliseconds = int(((match[7] or "") + "000")[:3])
    return (minutes * 60 + second) * 1000 + milliseconds


def is_leap_year(year):
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def days_in_month(year, month):
    if month == 2:
        return 29 if is_leap_year(year) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def days_since_epoch(year, month, day):
    years_before = year - 1  # year 0 counts -1 full years since year 1
    days = years_before * 365 + years_before // 4 - years_before // 100 + years_before // 400
    days += sum(days_in_month(year, earlier) for earlier in range(1, month))
    return days + day - 1 - 719_162


def classify_play(event_type, watched_s, duration_s):
    watched, duration = number(watched_s), number(duration_s)
    if watched < 0 or duration <= 0:
        raise RefusedError("watched_s, duration_s")
    completion = min(1.0, watched / duration)
    value = math.floor(200 * completion + 0.5)
    if watched >= 30 and completion >= 0.05:
        return PLAY, value
    return (BRIEF_PLAY, value) if event_type == "play_stop" else None


def number(value):
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedError("number")
    return float(value)


# --- keys, words, digest -----------------------------------------------------------------------


def item_key(item_id):
    return int.from_bytes(
        hashlib.blake2b(item_id.encode("utf-8"), digest_size=8).digest(), "little"
    )


def word(event_time_ms, value, kind):
    return event_time_ms << 16 | value << 8 | kind


def mix(z):
    """splitmix64's finaliser."""
    z &= U64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & U64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & U64
    return z ^ (z >> 31)


def bucket(user_id):
    return f"{zlib.crc32(user_id.encode('utf-8')) % 256:02x}"


def history_key(user_id):
    return "st:h:{" + bucket(user_id) + "}:" + user_id


def imported_key(user_id, variant):
    return f"st:u:{{{bucket(user_id)}}}:{variant}:{user_id}"


def features_key(user_id, variant):
    return "st:f:{" + bucket(user_id) + "}:" + variant + ":" + user_id


# --- the lattice -------------------------------------------------------------------------------


@dataclass
class State:
    """A user: the last write of every (item_key, kind), and what is forgotten."""

    entries: dict = field(default_factory=dict)
    forgotten_before_ms: int = 0

    def learn(self, interactions=(), forgotten_before_ms=0):
        """Merge interactions and a forgetting into this state; return it."""
        self.forgotten_before_ms = max(self.forgotten_before_ms, forgotten_before_ms)
        for interaction in interactions:
            key = (interaction.item_key, interaction.kind)
            if key not in self.entries or self.entries[key].word < interaction.word:
                self.entries[key] = interaction
        kept = {}
        for kinds, capacity in GROUPS:
            group = [
                entry
                for entry in self.newest_first()
                if entry.kind in kinds and entry.event_time_ms > self.forgotten_before_ms
            ]
            kept.update({(entry.item_key, entry.kind): entry for entry in group[:capacity]})
        self.entries = kept
        return self

    def merged(self, other):
        """Return the join of two states; neither changes."""
        both = State(dict(self.entries), self.forgotten_before_ms)
        return both.learn(other.entries.values(), other.forgotten_before_ms)

    def newest_first(self):
        entries = self.entries.values()
        return sorted(entries, key=lambda entry: (entry.word, entry.item_key), reverse=True)

    @property
    def digest(self):
        total = sum(mix(entry.item_key + mix(entry.word)) for entry in self.entries.values())
        return (total + mix(self.forgotten_before_ms + 1)) & U64

    def to_bytes(self):
        entries = self.newest_first()
        header = struct.pack(
            "<2sBBHHQQ", b"SH", 1, 0, len(entries), 0, self.digest, self.forgotten_before_ms
        )
        return header + b"".join(
            struct.pack("<QQ", entry.item_key, entry.word) for entry in entries
        )


def replay(log):
    """Return the state of every user of a log of `Accepted` events."""
    states = {}
    for event in log:
        state = states.setdefault(event.user_id, State())
        state.learn(
            [event.interaction] if event.interaction else [], event.forgotten_before_ms or 0
        )
    return states


def merge_outcomes(before, interactions, forgotten_before_ms=0):
    """Count what becomes of the interactions of one batch; the labels of the operators' metric."""
    after = before.merged(State()).learn(interactions, forgotten_before_ms)
    outcomes = Counter()
    seen = set()
    for each in sorted(interactions, key=lambda interaction: interaction.word, reverse=True):
        key = (each.item_key, each.kind)
        held = before.entries.get(key)
        if each.event_time_ms <= after.forgotten_before_ms:
            outcomes["forgotten"] += 1
        elif key in seen or (held and held.word >= each.word):
            outcomes["known"] += 1
        elif key not in after.entries:
            outcomes["out_of_window"] += 1
        else:
            outcomes["newer" if held and is_alive(held, after) else "new"] += 1
        seen.add(key)
    return outcomes


def is_alive(entry, state):
    return entry.event_time_ms > state.forgotten_before_ms


def is_sound(value):
    """Whether bytes are a history that some merge can have left; reserved bytes may be anything."""
    if len(value) < 24 or (len(value) - 24) % 16:
        return False
    magic, version, _, count, _, _, forgotten_before_ms = struct.unpack_from("<2sBBHHQQ", value)
    if (magic, version, 24 + 16 * count) != (b"SH", 1, len(value)):
        return False
    entries = read_entries(value)
    if any(entry.kind not in KINDS.values() for entry in entries):
        return False
    canonical = State().learn(entries, forgotten_before_ms).to_bytes()
    return canonical[8:] == value[8:] and len(canonical) == len(value)


def read_entries(value):
    entries = []
    for start in range(24, len(value), 16):
        key, packed = struct.unpack_from("<QQ", value, start)
        entries.append(Interaction(key, packed & 0xFF, packed >> 16, packed >> 8 & 0xFF))
    return entries


def read_history(value):
    """Return the state that sound bytes say."""
    assert is_sound(value)
    (forgotten_before_ms,) = struct.unpack_from("<Q", value, 16)
    entries = {(entry.item_key, entry.kind): entry for entry in read_entries(value)}
    return State(entries, forgotten_before_ms)


# --- the learner -------------------------------------------------------------------------------

SIGNALS = {
    "play_complete": 1.0,
    "complete_from": 0.9,
    "play_least": 0.1,
    "brief_play": 0.05,
    "trailer_view": 0.3,
    "detail_view": 0.15,
    "my_list_add": 0.6,
    "my_list_remove": 0.0,
    "thumb_up": 1.5,
    "thumb_down": 0.3,
    "thumb_clear": 0.0,
}


@dataclass
class Model:
    """Item factors by item_key, and the manifest's weights."""

    factors: dict
    alpha: float
    regularization: float
    recency_floor: float = 0.05
    recency_half_life: float = 5.0
    signals: dict = field(default_factory=lambda: dict(SIGNALS))

    @cached_property
    def gram(self):
        table = np.array(list(self.factors.values()), dtype=np.float64)
        return table.T @ table


def strength(entry, signals):
    if entry.kind == PLAY:
        completion = entry.value / 200
        if completion >= signals["complete_from"]:
            return signals["play_complete"]
        return max(signals["play_least"], completion**2)
    if entry.kind == THUMB:
        name = {0: "thumb_clear", 1: "thumb_down", 2: "thumb_up"}.get(entry.value)
    elif entry.kind == MY_LIST:
        name = {0: "my_list_remove", 1: "my_list_add"}.get(entry.value)
    else:
        name = {number: kind for kind, number in KINDS.items()}[entry.kind]
    return signals[name] if name else 0.0


class Solution(NamedTuple):
    """One vector, float64; `energy` is its side of the bound and `energy_limit` the other."""

    vector: np.ndarray
    n_solved: int
    energy: float
    energy_limit: float


def fold_in(state, model, floor=None):
    """Solve one vector of one user densely; `floor=1` is the one without recency."""
    floor = model.recency_floor if floor is None else floor
    entries = state.newest_first()
    hidden = {entry.item_key for entry in entries if is_thumbs_down(entry)}
    n_factors = len(next(iter(model.factors.values())))
    ridge = model.gram + model.regularization * np.eye(n_factors)
    left, right = ridge.copy(), np.zeros(n_factors)
    rank, weights, n_solved = 0.0, 0.0, 0
    for entry in entries:
        s = strength(entry, model.signals)
        weight = s * (floor + (1 - floor) * 2 ** (-rank / model.recency_half_life))
        rank += min(1.0, s)
        if entry.item_key not in model.factors:
            continue
        if entry.item_key in hidden and not is_thumbs_down(entry):
            continue
        target = 0.0 if is_thumbs_down(entry) else 1.0
        factors = np.asarray(model.factors[entry.item_key], dtype=np.float64)
        left += model.alpha * weight * np.outer(factors, factors)
        right += model.alpha * weight * target * factors
        weights += weight
        n_solved += bool(target == 1 and weight > 0)
    vector = np.linalg.solve(left, right) if n_solved else np.zeros(n_factors)
    return Solution(vector, n_solved, vector @ ridge @ vector, model.alpha * weights)


def is_thumbs_down(entry):
    return entry.kind == THUMB and entry.value == 1


# --- features ----------------------------------------------------------------------------------

FEATURES_HEADER = struct.Struct("<2sBBBBHQQIIQQHH12s")
DTYPES = {1: "<f4", 2: "<f2"}


class Features(NamedTuple):
    dtype: int
    n_vectors: int
    n_factors: int
    model_id: int
    history_digest: int
    generation: int
    learner_id: int
    as_of_ms: int
    written_ms: int
    n_interactions: int
    n_solved: int
    vectors: np.ndarray


def read_features(value):
    """Return what features bytes of version 1 say."""
    magic, version, dtype, n_vectors, reserved, n_factors, *numbers, unused = (
        FEATURES_HEADER.unpack_from(value)
    )
    assert (magic, version, reserved, unused) == (b"SF", 1, 0, bytes(12))
    vectors = np.frombuffer(value, DTYPES[dtype], offset=FEATURES_HEADER.size)
    return Features(dtype, n_vectors, n_factors, *numbers, vectors.reshape(n_vectors, n_factors))


def write_features(features):
    """Return the bytes of `Features`."""
    dtype, n_vectors, n_factors, *numbers, vectors = features
    header = FEATURES_HEADER.pack(b"SF", 1, dtype, n_vectors, 0, n_factors, *numbers, bytes(12))
    return header + np.asarray(vectors).astype(DTYPES[dtype]).tobytes()


# --- imported vectors --------------------------------------------------------------------------

IMPORTED_HEADER = struct.Struct("<2sBBHHQQQ")


class Imported(NamedTuple):
    dtype: int
    n_factors: int
    model_id: int
    trained_through_ms: int
    written_ms: int
    vector: np.ndarray


def read_imported(value):
    """Return what the bytes of an imported vector of version 1 say."""
    magic, version, dtype, n_factors, reserved, *numbers = IMPORTED_HEADER.unpack_from(value)
    assert (magic, version, reserved) == (b"SU", 1, 0)
    vector = np.frombuffer(value, DTYPES[dtype], offset=IMPORTED_HEADER.size)
    assert len(vector) == n_factors
    return Imported(dtype, n_factors, *numbers, vector)


def write_imported(imported):
    """Return the bytes of `Imported`."""
    dtype, n_factors, *numbers, vector = imported
    header = IMPORTED_HEADER.pack(b"SU", 1, dtype, n_factors, 0, *numbers)
    return header + np.asarray(vector).astype(DTYPES[dtype]).tobytes()
