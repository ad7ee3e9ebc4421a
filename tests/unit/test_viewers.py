"""Viewers, titles and sittings: what the simulation promises about taste and mood."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from streamer.dev.catalog import build_catalog
from streamer.dev.sittings import EVENTS_PER_SITTING, SITTING_S, SittingWriter, half_of
from streamer.dev.viewers import build_audience, uniform_draws, viewer_id


@pytest.fixture(scope="module")
def catalog():
    return build_catalog(seed=7, n_titles=2_000)


@pytest.fixture(scope="module")
def audience(catalog):
    return build_audience(7, 2_000, catalog)


@pytest.fixture(scope="module")
def sittings(catalog, audience):
    """4,000 sittings of (viewer, happenings)."""
    draw = uniform_draws(np.random.default_rng(1))
    writer = SittingWriter(catalog, audience, draw, "run", half=0)
    viewers = [audience.pick_viewer(draw) for _ in range(4_000)]
    return [(viewer, writer.write(viewer)) for viewer in viewers]


def test_a_seed_always_gives_the_same_titles_and_tastes(catalog, audience):
    again = build_catalog(7, 2_000)
    assert again.strands == catalog.strands
    assert again.duration_s == catalog.duration_s
    viewers = build_audience(7, 2_000, again)
    assert np.array_equal(viewers.taste, audience.taste)
    assert viewers.activity == audience.activity


def test_another_seed_gives_other_titles_and_tastes(catalog, audience):
    other = build_catalog(8, 2_000)
    assert other.strands != catalog.strands
    assert not np.array_equal(build_audience(8, 2_000, other).taste, audience.taste)


@pytest.mark.parametrize("n_titles", [1, 2, 3, 47, 48, 49, 500])
def test_every_strand_of_a_catalog_of_any_size_has_titles(n_titles):
    catalog = build_catalog(3, n_titles)
    shelved = sorted(title for shelf in catalog.strands for title in shelf.titles)
    assert shelved == list(range(n_titles))
    assert catalog.genre_of.max() < catalog.n_genres <= 16


def test_popularity_follows_zipf_with_a_flattened_head(catalog):
    shares = np.sort(catalog.popularity)[::-1]
    assert shares[0] / shares[990] == pytest.approx(100.0)
    assert shares.sum() == pytest.approx(1.0)


def test_a_shelf_gives_its_titles_by_popularity(catalog):
    shelf = catalog.everything
    draws = np.random.default_rng(2).random(200_000).tolist()
    counts = np.bincount([shelf.pick(uniform) for uniform in draws], minlength=2_000)
    best = int(np.argmax(catalog.popularity))
    assert counts[best] / 200_000 == pytest.approx(catalog.popularity[best], rel=0.05)
    assert shelf.pick(np.nextafter(1.0, 0.0)) == shelf.titles[-1]


def test_tastes_are_sparse_and_activities_are_skewed(audience):
    assert np.allclose(audience.taste.sum(axis=1), 1.0, atol=1e-5)
    three_best = np.sort(audience.taste, axis=1)[:, -3:].sum(axis=1)
    assert np.median(three_best) > 0.6
    shares = np.sort(np.diff([0.0, *audience.activity]))
    assert shares[-200:].sum() > 0.25


def test_strands_are_picked_by_the_lasting_taste(catalog, audience):
    draw = uniform_draws(np.random.default_rng(3))
    genres = [audience.pick_strand(5, draw) // 3 for _ in range(20_000)]
    shares = np.bincount(genres, minlength=catalog.n_genres) / 20_000
    assert np.abs(shares - audience.taste[5]).max() < 0.02


def test_viewer_ids_sort_like_numbers():
    assert viewer_id(123) == "viewer-000123"


def test_the_planned_size_and_length_of_a_sitting_are_the_simulated_ones(sittings):
    sizes = [len(happenings) for _, happenings in sittings]
    lengths = [happenings[-1].offset_s for _, happenings in sittings]
    assert np.mean(sizes) == pytest.approx(EVENTS_PER_SITTING, rel=0.02)
    assert np.mean(lengths) == pytest.approx(SITTING_S, rel=0.05)


def test_time_never_runs_backwards_in_a_sitting(sittings):
    for _, happenings in sittings:
        offsets = [happening.offset_s for happening in happenings]
        assert offsets == sorted(offsets)
        assert offsets[0] >= 0.0


def test_titles_of_one_sitting_share_a_strand_far_more_often_than_chance(catalog, sittings):
    pairs = [
        catalog.strand_of[first.title] == catalog.strand_of[second.title]
        for _, happenings in sittings
        for starts in [[happening for happening in happenings if happening.kind == "play_start"]]
        for first, second in pairwise(starts)
    ]
    assert np.mean(pairs) > 0.4  # by chance 1 in 48


def test_a_title_is_rarely_watched_twice_by_the_same_viewer(sittings):
    plays, viewings = set(), set()
    for viewer, happenings in sittings:
        for happening in happenings:
            if happening.kind == "play_start":
                plays.add((viewer, happening.play_id))
                viewings.add((viewer, happening.title))
    assert len(viewings) > 0.99 * len(plays)


def test_a_viewer_picks_from_one_half_of_the_titles_only(sittings):
    halves = [
        half_of(viewer, happening.title)
        for viewer, happenings in sittings
        for happening in happenings
        if happening.kind == "play_start"
    ]
    assert np.mean(halves) < 0.01


def test_a_viewing_is_resumed_where_it_was_left(sittings):
    watched, resumed = {}, 0
    for _, happenings in sittings:
        for happening in happenings:
            if happening.kind in {"play_progress", "play_stop"}:
                assert happening.watched_s >= watched.get(happening.play_id, 0)
                watched[happening.play_id] = happening.watched_s
            if happening.kind == "play_start" and happening.play_id in watched:
                resumed += 1
    assert 0 < resumed < 0.1 * len(watched)


def test_what_fits_the_mood_is_finished_and_what_does_not_is_left_early(catalog, sittings):
    shares = {"because-you-watched": [], "trending-now": []}
    for _, happenings in sittings:
        row_id = ""
        for happening in happenings:
            if happening.kind == "play_start":
                row_id = happening.context["row_id"]
            if happening.kind == "play_stop" and row_id in shares:
                shares[row_id].append(happening.watched_s / catalog.duration_s[happening.title])
    assert np.mean(np.array(shares["because-you-watched"]) >= 0.9) > 0.6
    assert np.mean(np.array(shares["trending-now"]) < 0.05) > 0.5


def test_a_play_is_preceded_by_an_impression_of_its_title_on_the_same_page(sittings):
    for _, happenings in sittings[:500]:
        shown = set()
        for happening in happenings:
            if happening.kind == "impression":
                shown.add((happening.title, happening.context["request_id"]))
            resumed = happening.context and happening.context["row_id"] == "continue-watching"
            if happening.kind == "play_start" and not resumed:
                assert (happening.title, happening.context["request_id"]) in shown
