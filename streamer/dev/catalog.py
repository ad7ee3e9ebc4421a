"""The synthetic catalogue: titles with genres and a Zipf popularity, the same for the same seed.

Titles belong to a *strand*, a small group of titles that the same people like (what a streaming
service calls a micro-genre), and strands belong to genres. Popularity follows Zipf's law,
``1 / (rank + 10)``: the offset flattens the head, so that the best seller is not on every screen.

Viewers (`streamer.dev.viewers`) draw titles from a `Shelf`, whole strands or the whole catalogue.
"""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

GENRES: Final = (
    "drama", "comedy", "crime", "thriller", "science-fiction", "fantasy", "romance", "horror",
    "documentary", "true-crime", "anime", "animation", "reality", "stand-up", "sports", "history",
)  # fmt: skip
STRANDS_PER_GENRE: Final = 3
ZIPF_OFFSET: Final = 10.0
# Lognormal around a 38-minute episode: few films, and most sittings hold several titles.
MEDIAN_DURATION_S: Final = 2_300.0
DURATION_SIGMA: Final = 0.45
# At least 22 minutes, so that leaving within 60 seconds is always below 5 % watched.
MIN_DURATION_S: Final = 1_320
MAX_DURATION_S: Final = 9_000


@dataclass(frozen=True, slots=True)
class Shelf:
    """Titles to draw from by popularity.

    Attributes:
        titles: Title rows.
        cumulative: Cumulative popularity of `titles`, ascending, ending at exactly 1.
    """

    titles: list[int]
    cumulative: list[float]

    def pick(self, uniform: float) -> int:
        """Return the title row at `uniform` in [0, 1); popular titles are more likely."""
        return self.titles[bisect(self.cumulative, uniform)]


@dataclass(frozen=True, slots=True)
class Catalog:
    """Titles and how they hang together; n_titles rows, row r is ``title_ids[r]``.

    Attributes:
        title_ids: Such as ``title-00017``.
        strand_of: Strand of each title, shape (n_titles,).
        duration_s: Running time of each title in seconds.
        popularity: Share of each title among picks by popularity, shape (n_titles,), sum 1.
        strands: One shelf per strand; strand s is of genre ``s // STRANDS_PER_GENRE``.
        everything: All titles.
    """

    title_ids: list[str]
    strand_of: NDArray[np.int64]
    duration_s: list[int]
    popularity: NDArray[np.float64]
    strands: list[Shelf]
    everything: Shelf

    @property
    def n_genres(self) -> int:
        """How many genres have titles."""
        return -(-len(self.strands) // STRANDS_PER_GENRE)

    @property
    def genre_of(self) -> NDArray[np.int64]:
        """Genre of each title, shape (n_titles,), an index in `GENRES`."""
        return self.strand_of // STRANDS_PER_GENRE


def build_catalog(seed: int, n_titles: int) -> Catalog:
    """Return the catalogue of a seed; no strand is empty, however few the titles are.

    Args:
        seed: At least 0.
        n_titles: At least 1.
    """
    rng = np.random.default_rng((seed, 1))
    n_strands = min(n_titles, len(GENRES) * STRANDS_PER_GENRE)
    share = rng.dirichlet(np.full(n_strands, 4.0))
    strand_of = rng.choice(n_strands, size=n_titles, p=share)
    strand_of[:n_strands] = np.arange(n_strands)
    strand_of = rng.permutation(strand_of)
    # Ranks are dealt at random, so that a title's number says nothing about its popularity.
    popularity = np.reciprocal(rng.permutation(n_titles) + ZIPF_OFFSET, dtype=np.float64)
    popularity /= popularity.sum()
    duration_s = rng.lognormal(np.log(MEDIAN_DURATION_S), DURATION_SIGMA, n_titles)
    return Catalog(
        title_ids=[f"title-{row:05d}" for row in range(n_titles)],
        strand_of=strand_of,
        duration_s=np.clip(duration_s, MIN_DURATION_S, MAX_DURATION_S).astype(int).tolist(),
        popularity=popularity,
        strands=[_shelf(np.flatnonzero(strand_of == s), popularity) for s in range(n_strands)],
        everything=_shelf(np.arange(n_titles), popularity),
    )


def _shelf(rows: NDArray[np.int64], popularity: NDArray[np.float64]) -> Shelf:
    cumulative = np.cumsum(popularity[rows])
    cumulative /= cumulative[-1]
    # A sum that rounded to less than 1 would leave room for an index past the end.
    cumulative[-1] = 1.0
    return Shelf(titles=rows.tolist(), cumulative=cumulative.tolist())
