"""Verification: is Redis what the log says, user by user, also while everything runs?

A pass takes the users of one range of hashes (`selection`):

1. read the marks, then the letters, then the log to its present end;
2. read every user from Redis: whose bytes are those of the log is done, and that is nearly all;
3. ask the others again, a bounded number of rounds: read the marks, then these users, then the
   log on to its present end. What the marks vouch for must be in the stored history, and nothing
   may be there that the log does not say (`judgement`). The last round's verdict counts.

So somebody whose events are under way is behind, never different; whoever lacks an event below the
marks is different, however busy the system is.
"""

from __future__ import annotations

from collections.abc import Callable

from streamer.evaluation.expected import Expected
from streamer.evaluation.letter_offsets import LetterOffsets
from streamer.evaluation.selection import HashRange
from streamer.evaluation.verification import (
    DEFAULT_OPTIONS,
    SYSTEM_CLOCK,
    Clock,
    Sources,
    Verification,
    VerifyOptions,
    VerifyProgress,
)
from streamer.evaluation.verify_pass import VerifyPass


def verify(
    sources: Sources,
    options: VerifyOptions = DEFAULT_OPTIONS,
    on_progress: Callable[[VerifyProgress], object] = lambda _: None,
    clock: Clock = SYSTEM_CLOCK,
) -> Verification:
    """Recompute users from the log and compare them with Redis. Writes nothing.

    Args:
        sources: Where from.
        options: Who, and how gently.
        on_progress: Told often.
        clock: For tests.

    Returns:
        The verdicts. Cost: one merge of the log a pass, one read and one fold-in of every user.

    Raises:
        TransientError: Kafka or Redis did not answer.
    """
    result = Verification()
    letters = LetterOffsets()
    sample, start, n_wanted = options.sample, 0, options.sample.n_users
    while start < sample.hash_end and n_wanted != 0:
        users = HashRange(start, sample.hash_end, n_wanted, options.max_users)
        result.n_passes += 1
        one = VerifyPass(sources, options, clock, result, on_progress)
        n_found = one.run(Expected(users, letters), letters)
        start = users.end
        n_wanted = None if n_wanted is None else n_wanted - n_found
    result.n_letters = len(letters)
    return result
