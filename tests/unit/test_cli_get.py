import json
import re
import sys

import pytest
from click.testing import CliRunner
from worlds import NOW_MS, event, item_model, records

from streamer.cli.get import in_words
from streamer.cli.main import cli, main
from streamer.errors import StoreUnavailable
from streamer.events import Kind, Thumb
from streamer.factors import (
    FeatureDtype,
    FoldInParams,
    ImportStamp,
    RecencyFoldIn,
    encode_imported,
)
from streamer.history import item_key
from streamer.models import Pointer, load_model, write_model
from streamer.pipeline.records import Decoder
from streamer.pipeline.step import FeatureFormat, Known, LiveModel, plan
from streamer.stores import MemoryStore
from streamer.stores.keys import imported_key


class FakeSource:
    """The reader's port over a MemoryStore's values, with a model of forty titles."""

    def __init__(self, directory):
        model = item_model()
        folder = directory / "new"
        params = FoldInParams(alpha=10.0, regularization=1.0)
        self.model_id = write_model(
            folder,
            params=params,
            item_ids=model.item_ids,
            item_factors=model.item_factors,
            popularity=model.popularity,
        )
        folder.rename(directory / self.model_id)
        self.live = LiveModel("default", 1, load_model(directory / self.model_id), RecencyFoldIn())
        self.pointer = Pointer(self.model_id, 1)
        self.store = MemoryStore()
        self.is_down = False

    def learn(self, *events):
        decoded = Decoder().decode(records(*events))
        known = Known.nothing(len(decoded.user_ids))
        feature_format = FeatureFormat(FeatureDtype.F16, NOW_MS)
        step = plan(decoded.user_ids, known, decoded.arrived, [self.live], feature_format)
        self.store.write(step.writes)

    def read_values(self, keys):
        if self.is_down:
            raise StoreUnavailable("Redis: no answer", kind="timeout")
        return [self.store.values.get(key) for key in keys]

    def read_fresh(self):
        return {b"streamer/play-events/0": b"%d" % NOW_MS}

    def read_pointer(self, variant):
        return self.pointer

    def close(self):
        pass


@pytest.fixture
def source(tmp_path, monkeypatch):
    source = FakeSource(tmp_path)
    monkeypatch.setenv("STREAMER__MODELS__DIRECTORY", str(tmp_path))
    monkeypatch.setattr("streamer.cli.get.RedisSource", lambda _: source)
    monkeypatch.setattr("streamer.cli.get.ping", lambda _: None)
    return source


def run(*args):
    result = CliRunner().invoke(cli, ["get", *args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (Kind.PLAY, 200, "watched 100 %"),
        (Kind.PLAY, 175, "watched 87.5 %"),
        (Kind.BRIEF_PLAY, 4, "left after 2 %"),
        (Kind.DETAIL_VIEW, 0, "opened the details"),
        (Kind.TRAILER_VIEW, 0, "watched the trailer"),
        (Kind.MY_LIST, 1, "put on the list"),
        (Kind.MY_LIST, 0, "taken off the list"),
        (Kind.THUMB, Thumb.UP, "thumbs up"),
        (Kind.THUMB, Thumb.DOWN, "thumbs down: hidden"),
        (Kind.THUMB, 77, "value 77"),
    ],
)
def test_what_a_viewer_did_is_said_in_words(kind, value, words):
    assert in_words(kind, value) == words


def test_a_viewer_is_shown_with_history_vectors_and_titles(source):
    source.learn(
        event("u-1", "title-3", watched_s=2610, duration_s=3000),
        event("u-1", "a later title", NOW_MS - 5000, "detail_view"),
    )
    output = run("u-1", "-k", "3")
    assert re.search(r"viewer\s+u-1", output)
    assert re.search(r"status\s+STALE", output)
    assert source.model_id in output
    assert re.search(r"title-3 .*watched 87 % .*2025-11-23 12:13:20 UTC.* 0\.76", output)
    unknown = f"key {item_key('a later title'):016x}  not in the model"
    assert re.search(rf"{unknown} .*opened the details .* 0\.15", output)
    assert re.search(r"recent\s+norm \d", output)
    assert "titles by taste" in output
    assert len(re.findall(r"^│ +\d │", output, re.MULTILINE)) == 3


def test_for_machines_a_viewer_is_one_json_object(source):
    source.learn(event("u-1", "title-3"), event("u-1", "title-4", event_type="thumb_down"))
    answer = json.loads(run("u-1", "--json", "-k", "4"))
    assert answer["user_id"] == "u-1"
    assert (answer["status"], answer["error"]) == ("stale", None)
    assert (answer["model_id"], answer["generation"]) == (source.model_id, 1)
    assert answer["as_of_ms"] == answer["written_ms"] == NOW_MS
    entries = {entry["item_id"]: entry for entry in answer["history"]}
    assert entries["title-3"] == {
        "item_id": "title-3",
        "item_key": f"{item_key('title-3'):016x}",
        "kind": "play",
        "value": 200,
        "what": "watched 100 %",
        "event_time_ms": NOW_MS,
        "strength": 1.0,
    }
    assert entries["title-4"]["what"] == "thumbs down: hidden"
    assert answer["vectors"]["recent"]["norm"] > 0
    assert answer["ranked_by"] == "taste"
    assert len(answer["top"]) == 4
    scores = [title["score"] for title in answer["top"]]
    assert scores == sorted(scores, reverse=True)
    assert not {"title-3", "title-4"} & {title["item_id"] for title in answer["top"]}


def test_an_unknown_viewer_is_cold_and_no_error(source):
    answer = json.loads(run("nobody", "--json", "-k", "2"))
    assert (answer["status"], answer["history"], answer["vectors"]) == ("cold", [], {})
    assert answer["ranked_by"] == "popularity"
    assert [title["item_id"] for title in answer["top"]] == ["title-0", "title-1"]
    output = run("nobody")
    assert "COLD" in output
    assert "no history" in output
    assert "titles by popularity" in output


def test_a_forgotten_viewer_is_shown_as_such(source):
    source.learn(event("u-1", "title-3"), event("u-1", None, event_type="forget"))
    answer = json.loads(run("u-1", "--json"))
    assert (answer["status"], answer["history"]) == ("cold", [])
    assert answer["forgotten_before_ms"] > NOW_MS
    assert re.search(r"forgotten\s+until 2025-11-23", run("u-1"))


def test_without_a_live_model_the_history_is_shown_all_the_same(source):
    source.pointer = None
    source.learn(event("u-1", "title-3"))
    answer = json.loads(run("u-1", "--json"))
    assert (answer["top"], answer["ranked_by"]) == ([], None)
    assert answer["history"][0]["item_id"] is None
    output = run("u-1")
    assert f"key {item_key('title-3'):016x}" in output
    assert "streamer model publish" in output


def test_names_that_look_like_markup_are_printed_as_they_are(source):
    assert "[red]u[/red]" in run("[red]u[/red]")


def exit_code_of(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["streamer", "get", *args])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_a_redis_that_does_not_answer_is_exit_69(monkeypatch, capsys):
    monkeypatch.setenv("STREAMER__REDIS__URL", "redis://127.0.0.1:1/0")
    assert exit_code_of(monkeypatch, "secret-viewer") == 69
    error = capsys.readouterr().err
    assert error.startswith("streamer: Redis: ")
    assert "secret-viewer" not in error


def test_a_redis_that_stops_answering_is_exit_69(source, monkeypatch, capsys):
    source.is_down = True
    assert exit_code_of(monkeypatch, "u-1") == 69
    assert capsys.readouterr().err == "streamer: Redis did not answer: timeout\n"


def test_an_imported_vector_is_shown_if_it_is_asked_for(source):
    source.learn(event("u-1", "title-3"))
    stamp = ImportStamp(source.live.model.model_id, 0, FeatureDtype.F16, NOW_MS)
    [value] = encode_imported(source.live.model.item_factors[:1], stamp)
    source.store.values[imported_key("default", "u-1")] = value
    assert json.loads(run("u-1", "--json"))["is_imported"] is False
    assert json.loads(run("u-1", "--json", "--imported"))["is_imported"] is True
    assert run("u-1", "--imported").count("8 factors, imported") == 1
