from dataclasses import replace

import numpy as np
import oracle
import pytest

from streamer.pipeline.sweep import (
    CURSOR_OF_ENDS,
    MAX_PASSES,
    StoredUsers,
    advanced,
    begun,
    decode_sweep,
    encode_sweep,
    progress_of,
    rows_behind,
)

NOON_MS = 1_763_900_000_000


def played(*titles, forgotten_before_ms=0):
    plays = [
        oracle.Interaction(oracle.item_key(title), oracle.PLAY, NOON_MS + second, 200)
        for second, title in enumerate(titles)
    ]
    return oracle.State().learn(plays, forgotten_before_ms)


def features(digest, generation):
    header = (2, 2, 4, 11, digest, generation, 7, NOON_MS, NOON_MS, 1, 1)
    return oracle.write_features(oracle.Features(*header, np.zeros((2, 4))))


def passed(sweep, n_seen, n_behind):
    """A whole pass in one page."""
    return advanced(sweep, CURSOR_OF_ENDS, n_seen, n_behind, NOON_MS + 1000)


def test_a_page_moves_the_cursor_and_counts():
    sweep = advanced(begun(3, 40, NOON_MS), "96", 10, 4, NOON_MS)
    assert (sweep.cursor, sweep.n_seen, sweep.n_behind, sweep.n_found) == ("96", 10, 4, 4)
    assert (sweep.number, sweep.is_done, sweep.progress) == (1, False, 0.25)


def test_a_pass_that_found_nobody_behind_ends_the_sweep():
    sweep = passed(begun(3, 40, NOON_MS), 50, 0)
    assert sweep.is_done
    assert sweep.finished_ms == NOON_MS + 1000
    assert sweep.progress == 1.0


def test_a_pass_that_found_anybody_behind_is_followed_by_another_from_the_beginning():
    sweep = passed(advanced(begun(3, 1, NOON_MS), "7", 20, 1, NOON_MS), 30, 0)
    assert (sweep.is_done, sweep.number, sweep.cursor) == (False, 2, CURSOR_OF_ENDS)
    assert (sweep.n_seen, sweep.n_behind, sweep.n_found, sweep.n_expected) == (0, 0, 1, 50)
    assert passed(sweep, 50, 0).is_done


def test_those_who_stay_behind_for_ever_do_not_keep_the_sweep_going():
    sweep = passed(passed(begun(3, 1, NOON_MS), 50, 40), 50, 2)
    assert not sweep.is_done
    sweep = passed(sweep, 50, 2)
    assert (sweep.is_done, sweep.number, sweep.n_behind) == (True, 3, 2)


def test_whatever_happens_a_sweep_ends():
    sweep = begun(3, 1, NOON_MS)
    for behind in range(1000, 0, -1):
        sweep = passed(sweep, 1000, behind)
        if sweep.is_done:
            break
    assert sweep.number == MAX_PASSES


def test_progress_weighs_parts_by_their_users():
    half = advanced(begun(3, 30, NOON_MS), "7", 15, 0, NOON_MS)
    done = replace(begun(3, 90, NOON_MS), finished_ms=NOON_MS)
    assert progress_of([half, done]) == (0.5 * 30 + 90) / 120
    assert progress_of([advanced(half, "9", 99, 0, NOON_MS)]) == 1.0
    assert progress_of([]) == 0.0


def test_the_state_survives_the_way_through_the_store():
    sweep = advanced(begun(3, 40, NOON_MS), "18446744073709551615", 10, 4, NOON_MS)
    assert decode_sweep(encode_sweep(sweep)) == sweep


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{",
        b"[]",
        b"3",
        b"{}",
        encode_sweep(begun(3, 1, 1)).replace(b"3", b'"3"'),
        encode_sweep(begun(3, 1, 1)).replace(b'"0"', b"0"),
        encode_sweep(replace(begun(3, 1, 1), n_expected=0)),
    ],
)
def test_a_state_that_nobody_knows_counts_as_none(value):
    assert decode_sweep(value) is None


def test_who_lacks_features_of_this_generation_and_history_is_behind():
    state, other = played("x"), played("x", "y")
    history, digest = state.to_bytes(), state.digest
    forgotten = played(forgotten_before_ms=NOON_MS).to_bytes()
    cases = [
        (history, None, True),
        (history, features(digest, 2), True),
        (history, features(digest, 3), False),
        (history, features(other.digest, 3), True),
        (history, features(digest, 4), False),
        (history, features(other.digest, 4), False),
        (history, b"SF\2" + features(digest, 2)[3:], False),
        (history, b"SF\1", False),
        (None, None, False),
        (b"SH", None, False),
        (b"SH\2" + history[3:], None, False),
        (forgotten, None, False),
    ]
    users = StoredUsers(
        CURSOR_OF_ENDS,
        [f"u-{row}" for row in range(len(cases))],
        [case[0] for case in cases],
        [case[1] for case in cases],
    )
    wanted = [row for row, case in enumerate(cases) if case[2]]
    assert rows_behind(users, 3) == wanted
