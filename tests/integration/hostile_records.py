"""Hostile records from a seed: valid events, and what becomes of them in bytes, JSON and envelope.

Every record carries its own way to be wrong, or none: about half of them are accepted, so that the
good ones among the bad ones are seen to be learned.
"""

import time
from random import Random
from typing import NamedTuple

import oracle
import orjson
from fuzz.mutations import mutated
from integration.worker_process import SECRET, event, user

from streamer.dev.faults import FAULTS

N_TITLES = 60
N_VIEWERS = 2000
MONTH_MS = 30 * 86_400_000
BROKER_MAX_BYTES = 1_000_000  # of a record, with what the client and the broker add to it

VIEWERS = [
    *(user(0),) * 400,  # a viewer who never sleeps
    *(user(number) for number in range(N_VIEWERS)),
    *(
        f"{SECRET}{rest}"
        for rest in ("{", "}", "{00}", "}:x", ":default:x", " ", "'; --", "\\", "%s")
    ),
    *(f"{rest}{SECRET}" for rest in ("{ff}:", "st:h:{00}:", "../", "\u202e", "\u200b", "é", "😀")),
    SECRET + "x" * (oracle.MAX_ID_BYTES - len(SECRET)),
    SECRET + "é" * ((oracle.MAX_ID_BYTES - len(SECRET)) // 2),
    *(f"{SECRET}{rest}" for rest in ("\n", "\0", "\r\nFLUSHALL\r\n", "\x7f", "\x85")),  # refused
    SECRET + "x" * oracle.MAX_ID_BYTES,
]
FORGOTTEN = [user(10_000 + number) for number in range(300)]
ODD_TIMES_MS = (-(1 << 63), -1, 1, 946_684_800_000, 1 << 48, 1 << 62, (1 << 63) - 1)
FRAGMENTS = (
    "null", "true", "false", "0", "-0", "-1", "1e400", "-1e400", "1e-400", "NaN", "Infinity",
    "0x10", "1763900000000.0", "1763900000123", "1.7639e12", "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615", "18446744073709551616", "9" * 400, "00", "+1", ".5", '""', '"\\u0000"',
    '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\u202ednik"', '"a\\nb"', '"\x01"', "'x'",
    '"2025-11-23T12:13:20Z"', '"2025-11-23T12:13:60.123456789+23:59"', '"2025-02-29T00:00:00Z"',
    '"0000-01-01T00:00:00Z"', '"9999-12-31T23:59:59-23:59"', '"%s"' % ("x" * 128),
    '"%s"' % ("x" * 129), '"%s"' % ("é" * 64), '"%s"' % ("é" * 65), "[]", "{}", '["play_stop"]',
    '{"type": "play_stop"}', "[" * 40 + "]" * 40, "[" * 1023 + "]" * 1023, "[" * 1024 + "]" * 1024,
    "[" * 9000, '{"a":' * 500 + "1" + "}" * 500, '"play_stop"', '"impression"', '"thumb_up"',
)  # fmt: skip
ALMOST_NOTHING = (None, b"", b" ", b"\0", b"null", b"[]", b"\xef\xbb\xbf{}", b"{" * 999)
SHARES = (4000, 4500, 7000, 9300, 9800, 9996, 10_000)
"""Of the ways to make a value, summed up: as valid events, mutated, malformed, empty, large."""
FIELDS = (
    "type",
    "user_id",
    "item_id",
    "event_time",
    "watched_s",
    "duration_s",
    "context",
    "",
    "type ",
)


class HostileRecord(NamedTuple):
    """What a producer is given; `topic` is "play" or "browse"; no `timestamp_ms` is the present."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list
    timestamp_ms: int


class HostileRecords:
    """An endless stream; equal seeds give equal streams, but for the present time in the events."""

    def __init__(self, seed):
        self._rolls = Random(seed)
        self._now_ms = int(time.time() * 1000)
        self._valid = [self._event() for _ in range(3000)]
        self._ways = (
            self._as_it_was,
            self._event,
            self._other_json,
            self._other_bytes,
            self._fault,
            self._almost_nothing,
            self._large_value,
        )

    def __iter__(self):
        return self

    def __next__(self):
        rolls = self._rolls
        value = self._value()
        topic = "play" if rolls.random() < 0.7 else "browse"
        record = HostileRecord(topic, None, value, [], 0)
        if rolls.random() < 0.03:
            return self._odd_envelope(record)
        if rolls.random() < 0.8:
            key = user(rolls.randrange(N_VIEWERS)).encode()
            return record._replace(key=key)
        return record

    def _event(self):
        rolls = self._rolls
        event_type = rolls.choice(oracle.TYPES)
        viewers = FORGOTTEN if event_type == "forget" else VIEWERS
        return event(
            event_type,
            item=f"title-{rolls.randrange(N_TITLES)}",
            time_ms=self._now_ms - rolls.randrange(MONTH_MS),
            user_id=rolls.choice(viewers),
            **(
                {"watched_s": rolls.choice((0, 29, 30, 600.5, 3000))}
                if rolls.random() < 0.5
                else {}
            ),
        )

    def _value(self):
        """One of the ways to make a value, each with its share of 10,000."""
        rolls = self._rolls
        [way] = rolls.choices(self._ways, cum_weights=SHARES)
        return way()

    def _as_it_was(self):
        return self._rolls.choice(self._valid)

    def _other_bytes(self):
        return mutated(self._rolls.choice(self._valid), self._valid, self._rolls)

    def _fault(self):
        return self._rolls.choice(FAULTS[:-1]).make(self._rolls.choice(VIEWERS), self._now_ms)

    def _almost_nothing(self):
        return self._rolls.choice(ALMOST_NOTHING)

    def _other_json(self):
        """An event whose text has fields replaced, repeated, added or taken away."""
        rolls = self._rolls
        fields = [
            (name, orjson.dumps(value).decode())
            for name, value in orjson.loads(rolls.choice(self._valid)).items()
        ]
        for _ in range(rolls.choice((1, 1, 2, 4))):
            fragment = rolls.choice(FRAGMENTS)
            place = rolls.randrange(len(fields) + 1)
            roll = rolls.random()
            if roll < 0.5 and place < len(fields):
                fields[place] = (fields[place][0], fragment)
            elif roll < 0.6 and place < len(fields):
                del fields[place]
            else:
                fields.insert(place, (rolls.choice(FIELDS), fragment))
        text = ", ".join(f'"{name}": {value}' for name, value in fields)
        return f"{{{text}}}".encode("utf-8", "surrogatepass")

    def _large_value(self):
        """About the limit of an event, up to what the broker takes; some of them well-formed."""
        rolls = self._rolls
        size = rolls.choice(
            (65_535, 65_536, 65_537, 100_000, 131_072, 131_073, BROKER_MAX_BYTES - 500)
        )
        if rolls.random() < 0.3:
            return rolls.randbytes(size)
        value = rolls.choice(self._valid)
        return value + b" " * (size - len(value))

    def _odd_envelope(self, record):
        rolls = self._rolls
        roll = rolls.random()
        if roll < 0.4:
            value = self._event() if rolls.random() < 0.5 else record.value
            return record._replace(
                topic="browse", value=value, timestamp_ms=rolls.choice(ODD_TIMES_MS)
            )
        if roll < 0.7:
            keys = (b"", b"\0", b"\xff\xfe", b"{}", b"k" * 300, rolls.randbytes(40))
            return record._replace(key=rolls.choice(keys))
        if roll < 0.99:
            return record._replace(headers=self._headers())
        if rolls.random() < 0.5:
            return record._replace(key=b"k" * 140_000, value=record.value and record.value[:9000])
        value = record.value and record.value[:9000]
        return record._replace(headers=[("h", b"x" * 140_000)], value=value)

    def _headers(self):
        rolls = self._rolls
        return rolls.choice(
            (
                [("", b"")],
                [("reason", b"not_json"), ("offset", b"-1"), ("topic", None)],
                [("\u202e\0", b"\xff" * 50), ("n" * 500, b"")],
                [(f"h{number}", b"x") for number in range(200)],
                [("same", None)] * 1000,
                [("sha256", rolls.randbytes(32))],
            )
        )
