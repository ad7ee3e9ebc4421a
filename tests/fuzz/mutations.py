"""Seeded mutations of bytes: what a byte-level fuzzer does, without its eyes.

Cuts, flips, splices, repetitions, numbers at their borders, and words of the formats. Also writes
the dictionary that the coverage-guided fuzzer uses.
"""

import struct

NESTED = b"[" * 1024 + b"]" * 1024
WORDS = (
    b"null", b"true", b"1e400", b"-0", b"-1", b"0.5", b"NaN", b"1e-400", b"9223372036854775808",
    b"18446744073709551615", b"18446744073709551616", b"1763900000123.0", b"9" * 400, b'"', b"{",
    b"}", b"[]", b"{}", b",", b":", b"\\u0000", b"\\ud800", b"\\ud83d\\ude00", b"\\n",
    b'"type":"forget"', b'"user_id":', b'"item_id":', b'"event_time":', b'"watched_s":',
    b'"duration_s":', b'"x":', b"2000-01-01T00:00:00Z", b"2025-02-29T23:59:60.999+23:59",
    b"@-1\n", b"@0\n", b"@9223372036854775807\n", b"\n--\n", b"\xff", b"\xed\xa0\x80", b"\xc2\x85",
    b"\x00", b"\x7f", b"\xe2\x80\xae", b"x" * 129, "é".encode() * 64,
    b"SH\1", b"SH\2", b"SF\1", b"\x93NUMPY\1\0", b"\x93NUMPY\2\0", b"(2, 2)", b"(-1,)", b"'<f4'",
    b"'|O'", b"'descr':", b"'fortran_order': True", b"'shape':", b"L", b"(" * 300, b"-" * 3000,
    b"\n== item_ids.json ==\n", b"\n== popularity.npy -> itself ==\n",
    b"\n== item_ids.json -> too long ==\n", b"\n== popularity.npy -> memory ==\n",
    b'"alpha":', b'"signals":', b'"n_items":', b'"n_factors":', b'"regularization":', NESTED,
)  # fmt: skip
NUMBERS = (0, 1, 2, 127, 128, 255, 256, 65_535, 1 << 31, (1 << 48) - 1, 1 << 63, (1 << 64) - 1)
MAX_DICTIONARY_WORD_BYTES = 64
ESCAPED = "\\x{:02x}".format


def mutated(data, others, rolls):
    """Return bytes near `data`; some steps at once, of one kind or of several.

    Args:
        data: Where to begin.
        others: More inputs of the same kind, to splice from.
        rolls: The randomness.
    """
    value = bytearray(data)
    for _ in range(rolls.choice((1, 1, 1, 2, 3, 8))):
        rolls.choice(STEPS)(value, others, rolls)
    return bytes(value)


def _place(value, rolls):
    return rolls.randrange(len(value) + 1)


def _cut(value, others, rolls):
    start = _place(value, rolls)
    del value[start : start + rolls.choice((1, 1, 2, 8, 16, len(value)))]


def _flip(value, others, rolls):
    if value:
        value[rolls.randrange(len(value))] ^= 1 << rolls.randrange(8)


def _overwrite(value, others, rolls):
    start = _place(value, rolls)
    noise = rolls.randbytes(rolls.choice((1, 2, 4, 8)))
    value[start : start + len(noise)] = noise


def _number(value, others, rolls):
    start, width = _place(value, rolls), rolls.choice("BHIQ")
    number = rolls.choice(NUMBERS) % (1 << 8 * struct.calcsize(width))
    value[start : start + struct.calcsize(width)] = struct.pack("<" + width, number)


def _word(value, others, rolls):
    start = _place(value, rolls)
    value[start : start + rolls.choice((0, 0, 1, 4, 13))] = rolls.choice(WORDS)


def _repeat(value, others, rolls):
    start = _place(value, rolls)
    part = value[start : start + rolls.choice((1, 4, 16, 64))]
    value[start:start] = part * rolls.choice((1, 1, 2, 50))


def _splice(value, others, rolls):
    other = rolls.choice(others)
    start, length = rolls.randrange(len(other) + 1), rolls.choice((1, 8, 16, 64, len(other)))
    at = _place(value, rolls)
    value[at : at + rolls.choice((0, length))] = other[start : start + length]


STEPS = (_cut, _flip, _overwrite, _number, _word, _word, _repeat, _splice)


def dictionary():
    """Return `WORDS` in the format of libFuzzer."""
    words = [word for word in WORDS if len(word) <= MAX_DICTIONARY_WORD_BYTES]
    return "".join(f'"{"".join(map(ESCAPED, word))}"\n' for word in words)
