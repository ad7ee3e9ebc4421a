"""The demo's verdict: is every viewer right, and was freshness worth anything?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from streamer.app import read_live_model, redis_client
from streamer.cli.verify import as_json_object, sources_of
from streamer.config import Settings
from streamer.errors import RejectedRecord
from streamer.evaluation.golden import GoldenHistories
from streamer.evaluation.prequential import hit_rates
from streamer.evaluation.verify import verify
from streamer.events import decode_event
from streamer.kafka.log_reader import read_log
from streamer.pipeline.records import Record
from streamer.reader import FeatureReader

N_TITLES_SHOWN: Final = 5


class Judge:
    """Looks at the viewers before the stream, and at everything after it."""

    def __init__(self, settings: Settings, live_from_ms: int) -> None:
        self._settings = settings
        self._live_from_ms = live_from_ms
        self._before: dict[str, Sequence[str]] = {}

    def look_before(self, keys: Iterable[bytes]) -> None:
        """Remember every viewer's best titles as they are now."""
        user_ids = sorted({key.decode() for key in keys})
        self._before = dict(zip(user_ids, self._best_titles(user_ids), strict=True))

    def verdict(self, console: Console) -> dict[str, Any]:
        """Recompute everything from the log; show one viewer."""
        kafka = self._settings.kafka
        client = redis_client(self._settings.redis)
        live = read_live_model(self._settings, client)
        assert live is not None, "the demo has published one"
        records = list(read_log(kafka.client, kafka.bootstrap_servers, kafka.topics))
        with sources_of(self._settings, client) as sources:
            check = verify(sources)
        stream = sorted(
            (record for record in records if record.timestamp_ms >= self._live_from_ms),
            key=lambda record: record.timestamp_ms,
        )
        past = GoldenHistories()
        past.apply([record for record in records if record.timestamp_ms < self._live_from_ms])
        rates = hit_rates(past, stream, live.model, live.learner)
        self._show_viewer(_busiest(stream, set(self._before)), console)
        verified = as_json_object(check)
        return {
            "hit_rate": {"fresh": rates.fresh, "frozen": rates.frozen},
            "verify": {name: verified[name] for name in ("users", "equal", "behind", "different")},
        }

    def _show_viewer(self, user_id: str, console: Console) -> None:
        after = self._best_titles([user_id])[0]
        table = Table(title=f"the best titles for {user_id}", min_width=40)
        for column in ("before the stream", "now"):
            table.add_column(column)
        for pair in zip(self._before[user_id], after, strict=True):
            table.add_row(*pair)
        console.print(table)

    def _best_titles(self, user_ids: Sequence[str]) -> list[Sequence[str]]:
        models = self._settings.models
        with FeatureReader.connect(
            self._settings.redis.url,
            variant=models.variant,
            models=models.directory,
            timeout_seconds=1.0,
            learner=models.learner,
        ) as reader:
            return [found.item_ids for found in reader.top_k_many(user_ids, k=N_TITLES_SHOWN)]


def _busiest(stream: Sequence[Record], candidates: set[str]) -> str:
    """Return the viewer with the most valid events among those seen before."""
    counts: Counter[str] = Counter()
    for record in stream:
        try:
            counts[decode_event(record.value, record.timestamp_ms).user_id] += 1
        except RejectedRecord:
            continue
    return next(user_id for user_id, _ in counts.most_common() if user_id in candidates)
