"""`streamer.evaluation.replay`, as a researcher calls it, and what it shows."""

import json
import re
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest
from worlds import NOW_MS, event, item_model

from streamer.errors import ConfigError, ModelError
from streamer.evaluation import Report, replay
from streamer.evaluation.trial.log_sources import records_of_values
from streamer.evaluation.trial.page import as_fragment, as_page
from streamer.factors import FoldInParams, RecencyFoldIn, UserFactors
from streamer.models import ModelNotes, write_model

pandas = pytest.importorskip("pandas", reason="not run: pandas is not installed")
pyarrow = pytest.importorskip("pyarrow", reason="not run: streamer[replay] is not installed")
pytest.importorskip("matplotlib", reason="not run: streamer[replay] is not installed")
parquet = pytest.importorskip("pyarrow.parquet")

N_ITEMS = 40


def log_values(n_events=400):
    rng = np.random.default_rng(8)
    kinds = ("play_stop", "play_stop", "play_stop", "detail_view", "thumb_up")
    for n in range(n_events):
        user, item = f"u{rng.integers(12)}", f"title-{rng.integers(N_ITEMS)}"
        yield event(user, item, NOW_MS + n * 60_000, kinds[rng.integers(len(kinds))])
    yield event("u3", None, NOW_MS + 60_000 * n_events, "forget")
    yield b"{"


VALUES = list(log_values())
ROWS = [json.loads(value) for value in VALUES[:-1]]


def frame(**columns):
    return pandas.DataFrame(ROWS).assign(**columns)


def ranks_of(report):
    return {name: board.ranks.tolist() for name, board in report.trial.boards.items()}


@pytest.fixture(scope="module")
def expected():
    return ranks_of(replay(VALUES, item_model(), targets_from=0.5))


def replayed(events):
    return ranks_of(replay(events, item_model(), targets_from=0.5))


# --- whatever a researcher has at hand ----------------------------------------------------------


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(ROWS, id="dictionaries"),
        pytest.param((row for row in ROWS), id="a generator"),
        pytest.param([value.decode() for value in VALUES], id="text"),
        pytest.param(list(records_of_values(VALUES)), id="records"),
    ],
)
def test_an_iterable_of_anything_gives_the_same(events, expected):
    assert replayed(events) == expected


def test_a_data_frame_gives_the_same(expected):
    assert replayed(frame()) == expected


def test_a_data_frame_with_times_of_its_own_gives_the_same(expected):
    times = pandas.to_datetime(frame()["event_time"], unit="ms", utc=True)
    assert replayed(frame(event_time=times)) == expected
    assert replayed(frame(event_time=times.dt.tz_convert("Asia/Tokyo"))) == expected


def test_a_table_of_pyarrow_gives_the_same(expected):
    assert replayed(pyarrow.Table.from_pandas(frame())) == expected


class LikePolars:
    """What is used of a DataFrame of polars."""

    def iter_rows(self, *, named):
        assert named
        yield from ROWS


def test_a_data_frame_of_polars_gives_the_same(expected):
    assert replayed(LikePolars()) == expected


@pytest.mark.parametrize("unit", ["ms", "ns"])
def test_a_file_of_parquet_gives_the_same(tmp_path, expected, unit):
    path = tmp_path / "log.parquet"
    times = pandas.to_datetime(frame()["event_time"], unit="ms", utc=True).astype(
        f"datetime64[{unit}, UTC]"
    )
    parquet.write_table(pyarrow.Table.from_pandas(frame(event_time=times, other=1)), path)
    assert replayed(path) == expected


def test_records_as_they_came_from_kafka_give_the_same(tmp_path, expected):
    path = tmp_path / "records.parquet"
    table = pyarrow.table({"value": VALUES, "partition": [0] * len(VALUES)})
    parquet.write_table(table, path)
    assert replayed(str(path)) == expected


def test_a_records_own_timestamp_counts(tmp_path):
    """The forget is of the moment at which its record came."""
    values = [event("ann", None, NOW_MS, "forget"), *VALUES[:-2]]
    values += [event("ann", f"title-{n}", NOW_MS + 400_000 + n) for n in range(5)]
    late_ms = NOW_MS + 10**9
    table = pyarrow.table({"value": values, "timestamp": [late_ms] * len(values)})
    path = tmp_path / "records.parquet"
    parquet.write_table(table, path)
    users = replay(path, item_model(), targets_from=0.0).trial.targets.users
    without = replay(values, item_model(), targets_from=0.0).trial.targets.users
    assert len(without) - len(users) == 5


def test_a_file_of_lines_gives_the_same(tmp_path, expected):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n".join(VALUES))
    seen = []
    report = replay(
        path, item_model(), targets_from=0.5, on_progress=lambda *told: seen.append(told)
    )
    assert ranks_of(report) == expected
    assert {stage for stage, _, _ in seen} >= {"trending", "scoring"}
    assert all(done <= total for _, done, total in seen)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (7, "of type int; expected a file, a DataFrame"),
        ({"type": "play_stop"}, "of type dict; expected"),
        (b"{}", "of type bytes; expected"),
        ([1], "event 0 is of type int"),
        ([{"user": "ann"}], "row 0 has neither a `type` nor a `value`"),
        ([{**ROWS[0], "event_time": datetime(2026, 1, 1)}], "without a time zone"),  # noqa: DTZ001
        ([], "no valid event in the log; rejected: nothing"),
        (["{"], "rejected: 1 not_json"),
    ],
)
def test_what_is_no_log_is_refused(events, message):
    with pytest.raises(ConfigError, match=message):
        replay(events, item_model())


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        replay(tmp_path / "none.jsonl", item_model())
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(ModelError, match="cannot be read as Parquet"):
        replay(tmp_path / "broken.parquet", item_model())


# --- models, learners, times --------------------------------------------------------------------


class Mine:
    """A learner as one writes it in a cell: no module, no registration."""

    name = "mine"

    def __call__(self, histories, model):
        return RecencyFoldIn()(histories, model)


@pytest.fixture
def folder(tmp_path):
    model = item_model()
    write_model(
        tmp_path / "m",
        params=FoldInParams(alpha=10.0, regularization=1.0),
        item_ids=list(model.item_ids),
        item_factors=model.item_factors,
        popularity=model.popularity,
        notes=ModelNotes(trained_through=NOW_MS + 200 * 60_000),
    )
    return tmp_path / "m"


def test_a_folder_says_from_when_on_plays_are_foreseen(folder):
    by_folder = replay(VALUES, folder)
    for moment in (
        NOW_MS + 200 * 60_000,
        datetime.fromtimestamp(NOW_MS / 1000 + 200 * 60, UTC),
        datetime.fromtimestamp(NOW_MS / 1000 + 200 * 60, UTC).isoformat(),
    ):
        again = replay(VALUES, str(folder), targets_from=moment)
        assert ranks_of(again) == ranks_of(by_folder)
    assert replay(VALUES, item_model()).n_targets < by_folder.n_targets


@pytest.mark.parametrize(
    ("targets_from", "message"),
    [
        (1.0, "a share of the log is 0 to 1"),
        ("yesterday", "expected a time with an offset"),
        (datetime(2026, 1, 1), "without a time zone"),  # noqa: DTZ001
    ],
)
def test_what_is_no_time_is_refused(targets_from, message):
    with pytest.raises(ConfigError, match=message):
        replay(VALUES, item_model(), targets_from=targets_from)


def test_contacts_are_more_than_plays():
    plays = replay(VALUES, item_model(), targets_from=0.0)
    contacts = replay(VALUES, item_model(), targets_from=0.0, targets="contacts")
    assert contacts.n_targets > plays.n_targets
    assert "first contacts" in contacts._repr_html_()
    with pytest.raises(ConfigError, match="expected 'plays' or 'contacts'"):
        replay(VALUES, item_model(), targets="clicks")


@pytest.mark.parametrize("learner", [Mine, Mine(), [Mine]])
def test_a_class_of_ones_own_is_a_learner(learner, expected):
    report = replay(VALUES, item_model(), learner, targets_from=0.5)
    assert report.learners == ["mine"]
    assert ranks_of(report)["mine"] == expected["recency_fold_in"]


def test_several_learners_are_compared():
    report = replay(VALUES, item_model(), [Mine, "flat_fold_in"], targets_from=0.5)
    assert report.learners == ["mine", "flat_fold_in"]
    assert set(report.lifts["mine"]) == {"flat_fold_in", *list(report.standings)[2:]}


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (len, "has a `name`|with a `name`"),
        (3, "of type int; expected a learner"),
        ([], "called nothing"),
        ([Mine, Mine()], "a name of its own"),
        ("flat_foldin", "did you mean"),
    ],
)
def test_what_is_no_learner_is_refused(learner, message):
    with pytest.raises(ConfigError, match=message):
        replay(VALUES, item_model(), learner)


# --- what it shows ------------------------------------------------------------------------------


class Hostile(Mine):
    name = "<script>alert('$x_1$')</script> & \"$"


class Page(HTMLParser):
    """Collects tags, what they load, and text; complains of what is left open."""

    VOID = frozenset({"meta", "path", "use", "rect", "br"})

    def __init__(self, html):
        super().__init__()
        self.tags, self.loads, self.text, self._open = [], [], "", []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in {"src", "href", "xlink:href"}]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def report():
    values = list(log_values(3_000))
    return replay(values, item_model(), [Hostile, "flat_fold_in"], targets_from=0.3)


def test_a_notebook_shows_tables_and_plots(report):
    assert isinstance(report, Report)
    shown = Page(report._repr_html_())
    assert shown.tags.count("svg") >= 4
    assert shown.tags.count("table") == 5
    recall = report.standings["flat_fold_in"].metrics["recall@20"].value
    assert f"{recall:.4f}" in shown.text


def test_a_terminal_shows_one_line(report):
    recall = report.standings["nightly"].metrics["recall@20"].value
    assert f"nightly {recall:.4f}" in repr(report)
    assert "\n" not in repr(report)


def test_the_page_stands_alone_and_runs_nothing(report):
    html = as_page(report)
    page = Page(html)
    assert html.startswith("<!doctype html>")
    assert all(target.startswith("#") for target in page.loads)
    assert "script" not in page.tags
    assert not re.search(r"@import|url\((?!#)", html)
    assert Hostile.name in page.text


def test_names_are_escaped_everywhere(report):
    assert "<script" not in as_page(report)
    assert "&lt;script&gt;" in as_fragment(report)


def test_what_is_shown_is_in_the_json_too(report):
    answer = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert answer["targets"] == report.n_targets
    assert list(answer["learners"]) == list(report.standings)
    assert [group["label"] for group in answer["by_delay"]] == ["at once", "5 min", "1 h", "24 h"]
    assert answer["lifts"]["flat_fold_in"]["nightly"]["recall@20"]["interval"][0] is not None


def test_without_matplotlib_a_notebook_shows_tables_and_says_what_is_missing(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    shown = Page(as_fragment(report))
    assert "svg" not in shown.tags
    assert shown.tags.count("table") == 5
    assert "pip install 'streamer[replay]'" in shown.text
    with pytest.raises(ConfigError, match=r"pip install 'streamer\[replay\]'"):
        as_page(report)


def test_without_pyarrow_parquet_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pyarrow.*streamer\[replay\]"):
        replay(tmp_path / "log.parquet", item_model())


class Silent(Mine):
    name = "silent"

    def __call__(self, histories, model):
        n_users = len(histories)
        vectors = np.zeros((n_users, 1, model.n_factors), np.float32)
        return UserFactors(vectors, np.zeros(n_users, np.int64), np.zeros(n_users, bool))


def test_a_report_of_next_to_nothing_can_be_shown():
    report = replay([event("ann", "title-39", NOW_MS)], item_model(), Silent, targets_from=0.0)
    shown = Page(as_page(report))
    assert shown.tags.count("svg") == 4
    assert report.to_json()["lifts"]["silent"]["nightly"]["recall@20"] == {
        "lift": None,
        "interval": [None, None],
    }
