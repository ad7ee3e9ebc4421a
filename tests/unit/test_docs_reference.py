"""The reference, held against the package: whoever trusts a page must not be led astray.

Where a page is wrong, the failure says what would be right.
"""

import json
import os
import re
import runpy
import shutil
import string
import subprocess
import tomllib
import zlib
from itertools import combinations
from pathlib import Path

import click
import numpy as np
import pytest
from confluent_kafka import Consumer

from streamer.cli.main import (
    EXIT_CONFIG,
    EXIT_FAILURE,
    EXIT_TEMPORARY,
    EXIT_UNAVAILABLE,
    VERBS,
    LazyGroup,
)
from streamer.config import load_settings
from streamer.config.settings import _SECRET_WORDS, MAX_SECRET_FILE_BYTES
from streamer.errors import ConfigError, RejectedRecord
from streamer.events import (
    EARLIEST_EVENT_TIME_MS,
    LATEST_EVENT_TIME_MS,
    MAX_AHEAD_MS,
    MAX_ID_BYTES,
    MAX_VALUE_BYTES,
    EventType,
    Kind,
    MyList,
    RejectReason,
    Thumb,
    decode_event,
)
from streamer.experiments import Book
from streamer.factors import LEARNER_FAULTS, FeatureDtype, RecencyFoldIn, features, imported
from streamer.factors.blend import blend
from streamer.factors.sgd_replay import SgdReplay
from streamer.history import GROUPS, codec
from streamer.kafka.dead_letters import MAX_LETTER_BYTES
from streamer.kafka.topics import DEAD_LETTER_RETENTION_FACTOR, topic_specs
from streamer.models import pointer_key
from streamer.reader.draft import LEARNER_FAILED
from streamer.runtime.guards import CLOSE_SECONDS, EXIT_WATCHDOG
from streamer.stores import keys

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
GENERATE = runpy.run_path(str(REFERENCE / "generate.py"))
PAGES = {path.name: path.read_text(encoding="utf-8") for path in REFERENCE.glob("*.md")}
OURS = ("config.md", "events.md", "redis.md", "cli.md", "allocation.md", "experiments.md")
CONFIG, EVENTS, REDIS, CLI, ALLOCATION, EXPERIMENTS = (PAGES[name] for name in OURS)
LINKED = (*OURS, "replay.md")
VECTORS = json.loads((ROOT / "tests" / "vectors.json").read_text(encoding="utf-8"))

RECORD_TIMESTAMP_MS = 1_763_900_060_000
USER = "u-1842"


def table(page, *head):
    """Return the rows below the head that begins with these columns, as they are written."""
    lines = page.splitlines()
    start = next(
        (at for at, line in enumerate(lines) if tuple(cells(line))[: len(head)] == head), None
    )
    assert start is not None, f"no table begins with the columns {head}"
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(cells(line))
    return rows


def cells(line):
    found = re.split(r"(?<!\\)\|", line.strip())[1:-1]
    return [cell.strip().replace("\\|", "|") for cell in found]


def bare(cell):
    return cell.strip("`")


def numbers(text):
    return [int(digits.replace(",", "")) for digits in re.findall(r"\d[\d,]*", text)]


def after(page, marker):
    _, found, rest = page.partition(marker)
    assert found, f"{marker} is gone"
    return rest


def verdict(value, record_timestamp_ms=RECORD_TIMESTAMP_MS):
    """Say what becomes of a value in the words of the pages: `play 174`, `none`, or a reason."""
    try:
        event = decode_event(value, record_timestamp_ms)
    except RejectedRecord as error:
        return str(error.reason)
    return words(event.evidence)


def words(evidence):
    return "none" if evidence is None else f"{evidence.kind.name.lower()} {evidence.value}"


# --- generated blocks, links, examples ---------------------------------------------------------


@pytest.mark.parametrize("name", GENERATE["PAGES"])
def test_generated_blocks_hold_what_the_package_says(name):
    generated = re.compile(r"<!-- generated:([^>]+?) -->\n(.*?)<!-- end -->", re.DOTALL)
    right = GENERATE["blocks"]()
    for block, text in generated.findall(PAGES[name]):
        assert text.strip("\n") == right[block], (
            f"docs/reference/{name}, block {block}; `python docs/reference/generate.py` writes\n\n"
            f"{right[block]}\n"
        )


def test_every_block_has_its_place():
    placed = re.findall(r"<!-- generated:([^>]+?) -->", "".join(map(PAGES.get, GENERATE["PAGES"])))
    assert sorted(placed) == sorted(GENERATE["blocks"]())


@pytest.mark.parametrize("name", LINKED)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[name]):
        if target.startswith("https://"):
            continue
        page, _, anchor = target.partition("#")
        assert not page or (REFERENCE / page).exists(), f"{name}: {target}"
        text = (REFERENCE / page).read_text() if page else PAGES[name]
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert not anchor or anchor in map(slug, headings), f"{name}: {target}"


def slug(heading):
    kept = (character for character in heading.lower() if character.isalnum() or character in " -_")
    return "".join(kept).replace(" ", "-")


# --- config.md ---------------------------------------------------------------------------------


@pytest.mark.parametrize("example", re.findall(r"```toml\n(.*?)```", CONFIG, re.DOTALL))
def test_example_files_load_and_librdkafka_knows_their_names(example, tmp_path):
    path = tmp_path / "streamer.toml"
    path.write_text(example, encoding="utf-8")
    client = load_settings(path, {}).kafka.client
    assert client == tomllib.loads(example)["kafka"].get("client", {})
    # In plain text nothing is read from the files that an example names, and without a broker
    # nothing is connected.
    harmless = {"bootstrap.servers": "", "group.id": "none", "security.protocol": "plaintext"}
    Consumer({**client, **harmless}).close()


def test_every_variable_on_the_page_is_a_setting(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("1\n", encoding="utf-8")
    for name in set(re.findall(r"STREAMER__\w+", CONFIG)):
        complaint = ""
        try:
            load_settings(None, {name: str(secret) if name.endswith("_FILE") else "1"})
        except ConfigError as error:
            complaint = str(error)  # of the value, for many
        assert "is not a setting" not in complaint, complaint


def test_secrets_and_their_files_work_as_told(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("of the file\r\n\n", encoding="utf-8")
    variable = "STREAMER__KAFKA__CLIENT__SASL_PASSWORD"
    settings = load_settings(
        None, {f"{variable}_FILE": str(secret), variable: "of the variable", "STREAMER_X": "ours?"}
    )
    assert settings.kafka.client == {"sasl.password": "of the file"}
    assert f"no more than {MAX_SECRET_FILE_BYTES:,} characters" in CONFIG


def test_what_is_masked_is_what_the_page_says():
    told = after(CONFIG, "names of `[kafka.client]` that contain ").partition(". Other")[0]
    assert set(re.findall(r"`([^`]+)`", told)) == set(_SECRET_WORDS)


def test_the_time_to_leave_the_group_is_told():
    assert f"may take {CLOSE_SECONDS:g} s more" in CONFIG


# --- events.md ---------------------------------------------------------------------------------


def test_every_event_type_is_in_the_table_with_its_evidence():
    rows = {bare(row[0]): row for row in table(EVENTS, "type", "kind", "value")}
    assert sorted(rows) == sorted(EventType)
    for event_type, (_, kind, value) in rows.items():
        if value == "share watched":
            continue  # the table of plays
        event = {"type": event_type, "user_id": USER, "item_id": "title-17", "event_time": 10**12}
        expected = verdict(json.dumps(event).encode())
        assert f"{bare(kind).split(',')[0]} {value}".strip() == expected, event_type


def test_plays_are_classified_as_in_the_table():
    rows = table(EVENTS, "`watched_s`", "`duration_s`", "`play_progress`", "`play_stop`")
    assert len(rows) >= 6
    for watched_s, duration_s, *expected in rows:
        for event_type, told in zip(("play_progress", "play_stop"), expected, strict=True):
            event = {
                "type": event_type,
                "user_id": USER,
                "item_id": "title-17",
                "event_time": 10**12,
                "watched_s": json.loads(watched_s),
                "duration_s": json.loads(duration_s),
            }
            right = verdict(json.dumps(event).encode())
            assert told.replace("`", "") == right, f"{event_type} {watched_s} of {duration_s}"


def test_kinds_groups_and_capacities_are_those_of_the_format():
    rows = table(EVENTS, "kind", "number", "group", "capacity of the group")
    assert {bare(row[0]): int(row[1]) for row in rows} == {
        kind.name.lower(): kind.value for kind in Kind
    }
    told = {(row[2], int(row[3])) for row in rows}
    found = {
        (frozenset(Kind[bare(row[0]).upper()] for row in rows if row[2] == group), capacity)
        for group, capacity in told
    }
    assert found == set(GROUPS)
    values = {bare(row[0]): row[4] for row in rows}
    for kind, of_kind in (("thumb", Thumb), ("my_list", MyList)):
        assert values[kind] == ", ".join(f"{each.value} {each.name.lower()}" for each in of_kind)


def test_limits_are_those_of_the_decoder():
    limits = {row[0]: numbers(row[1]) for row in table(EVENTS, "limit", "value")}
    assert limits["size of the value"] == [MAX_VALUE_BYTES]
    assert limits["`user_id`, `item_id`"][:2] == [1, MAX_ID_BYTES]
    assert limits["earliest event time"][0] == EARLIEST_EVENT_TIME_MS
    assert limits["latest event time"][0] == LATEST_EVENT_TIME_MS
    assert limits["event time ahead of the record's timestamp"][0] == MAX_AHEAD_MS
    assert f"more than {MAX_LETTER_BYTES:,} together" in EVENTS


EXAMPLES = re.findall(r"<!-- (valid|invalid): (.+?) -->\n```json\n(.*?)```", EVENTS, re.DOTALL)


def test_every_json_block_says_what_becomes_of_it():
    assert len(EXAMPLES) == EVENTS.count("```json") >= 10
    assert f"The timestamp of the record is {RECORD_TIMESTAMP_MS} in all" in EVENTS


@pytest.mark.parametrize(("form", "told", "example"), EXAMPLES)
def test_examples_decode_as_told(form, told, example):
    found = verdict(example.encode())
    assert found == told, f"{example}\nis {found}, not {told}"
    assert (form == "invalid") == (told in set(RejectReason))


REASONS = table(EVENTS, "reason", "cause", "example")
WITHOUT_JSON = {
    "empty_value": (b"", RECORD_TIMESTAMP_MS),
    "too_large": (b" " * (MAX_VALUE_BYTES + 1), RECORD_TIMESTAMP_MS),
    "not_utf8": (b"\xff{}", RECORD_TIMESTAMP_MS),
    "no_record_timestamp": (EXAMPLES[0][2].encode(), -1),
}


def test_every_reject_reason_is_in_the_table():
    told = [bare(row[0]) for row in REASONS]
    assert sorted(told) == sorted(RejectReason), f"right are: {', '.join(RejectReason)}"


@pytest.mark.parametrize("row", REASONS, ids=lambda row: bare(row[0]))
def test_reject_reasons_have_an_example_that_is_rejected_for_them(row):
    reason, example = bare(row[0]), row[2]
    if reason in WITHOUT_JSON:
        assert verdict(*WITHOUT_JSON[reason]) == reason
        return
    assert example.startswith("`"), f"{reason}: {example} is not code"
    text = bare(example)
    if text.startswith('"'):
        text = json.dumps({**json.loads(EXAMPLES[0][2]), **json.loads("{" + text + "}")})
    assert verdict(text.encode()) == reason, text


def test_reasons_are_told_in_the_order_of_the_checks():
    """A record that is wrong in two ways is rejected for the reason that stands above."""
    wrong = {
        "unknown_type": {"type": "rewind"},
        "bad_user_id": {"user_id": ""},
        "bad_item_id": {"item_id": ""},
        "bad_event_time": {"event_time": None},
        "no_record_timestamp": {"record_timestamp_ms": -1},
        "before_2000": {"event_time": 0},
        "too_far_ahead": {"event_time": 10**13},
        "bad_number": {"type": "play_stop"},
    }
    right = {"record_timestamp_ms": RECORD_TIMESTAMP_MS, **json.loads(EXAMPLES[0][2])}
    told = [bare(row[0]) for row in REASONS if bare(row[0]) in wrong]
    for earlier, later in combinations(told, 2):
        if wrong[earlier].keys() & wrong[later].keys():
            continue  # nothing can be wrong in both ways
        event = right | wrong[earlier] | wrong[later]
        record_timestamp_ms = event.pop("record_timestamp_ms")
        found = verdict(json.dumps(event).encode(), record_timestamp_ms)
        assert found == earlier, f"{found} is checked before {earlier}"


def test_topics_are_told_as_they_are_created():
    events, letters = topic_specs(
        ["play-events"], ".dlq", partitions=8, replication=3, retention_days=7
    )
    rows = {bare(row[0]): row[1:] for row in table(EVENTS, "setting", "event topics")}
    assert rows["partitions"] == [f"`--partitions`, {events.partitions}", str(letters.partitions)]
    for name in ("cleanup.policy", "message.timestamp.type"):
        assert bare(rows[name][0]) == events.settings[name]
    assert bare(rows["cleanup.policy"][1]) == letters.settings["cleanup.policy"]
    kept = f"`{letters.settings['message.timestamp.type']}`: letters keep the time of their record"
    assert rows["message.timestamp.type"][1] == kept
    assert rows["retention.ms"][1] == "four times as long"
    assert DEAD_LETTER_RETENTION_FACTOR == 4
    assert set(events.settings) <= set(rows)


# --- redis.md ----------------------------------------------------------------------------------

LAYOUTS = {
    "history header": codec.HEADER,
    "history entry": codec.ENTRY,
    "features header": features.HEADER,
    "imported header": imported.HEADER,
}


@pytest.mark.parametrize(("layout", "dtype"), LAYOUTS.items(), ids=LAYOUTS)
def test_layouts_are_those_of_the_codecs(layout, dtype):
    rows = table(after(REDIS, f"<!-- layout: {layout} -->"), "offset", "size", "field", "type")
    told = [(int(row[0]), int(row[1]), bare(row[2]), row[3]) for row in rows]
    right = []
    for name, (field, offset) in dtype.fields.items():
        assert field.kind in "uSV"
        kind = f"u{8 * field.itemsize}" if field.kind == "u" else "bytes"
        right.append((offset, field.itemsize, name, kind))
    assert told == right, "right is:\n" + "\n".join(map(str, right))
    assert sum(size for _, size, _, _ in told) == dtype.itemsize


def test_constants_in_the_layouts_are_those_of_the_codecs():
    history = {bare(row[2]): row[4] for row in table(REDIS, "offset", "size", "field")}
    rest = after(REDIS, "<!-- layout: features header -->")
    served = {bare(row[2]): row[4] for row in table(rest, "offset", "size", "field")}
    assert bare(history["magic"]).encode() == codec.MAGIC
    assert history["version"] == str(codec.FORMAT_VERSION)
    assert f"0 to {codec.N_SLOTS}" in history["count"]
    assert bare(served["magic"]).encode() == features.MAGIC
    assert served["version"] == str(features.FORMAT_VERSION)
    assert served["dtype"] == ", ".join(
        f"{each.value}: {each.name.lower()}" for each in FeatureDtype
    )
    beside = after(REDIS, "<!-- layout: imported header -->")
    alone = {bare(row[2]): row[4] for row in table(beside, "offset", "size", "field")}
    assert bare(alone["magic"]).encode() == imported.MAGIC
    assert alone["version"] == str(imported.FORMAT_VERSION)
    assert alone["dtype"] == served["dtype"]
    assert f"`{RecencyFoldIn.name}`" in served["learner_id"]
    assert features.learner_id(RecencyFoldIn.name) == zlib.crc32(RecencyFoldIn.name.encode())


@pytest.mark.parametrize("user_id", [USER, "zoë", "a:{b}:c"])
def test_keys_are_those_of_the_package(user_id):
    told = {bare(row[0]) for row in table(REDIS, "key", "type", "value")}
    tag = f"{{{zlib.crc32(user_id.encode()) % 256:02x}}}"
    names = {"{B}": tag, "VARIANT": "rows-2", "USER": user_id}
    names |= {"EXPERIMENT": "memory", "START_S": "1764568800"}
    written = set()
    for template in told:
        pattern = "|".join(map(re.escape, names))
        written.add(re.sub(pattern, lambda match: names[match[0]], template))
    history, served = keys.history_key(user_id), keys.features_key("rows-2", user_id)
    right = {
        history,
        served,
        keys.imported_key("rows-2", user_id),
        keys.quarantine_key(history),
        keys.quarantine_key(served),
        pointer_key("rows-2"),
        keys.MARKS,
        keys.MARKS_OF_BUCKET[keys.bucket_number(user_id)],
        f"{keys.SEQUENCES}WRITER",
        f"{keys.SEQUENCES_OF_BUCKET[keys.bucket_number(user_id)]}WRITER",
        keys.FRESH,
        keys.VARIANTS,
        keys.sweep_key("rows-2"),
        keys.sums_key(keys.bucket_number(user_id), Book("memory", 1_764_568_800_000)),
    }
    reserved = {"st:trend:WINDOW"}
    assert written == right | reserved


def test_sizes_are_those_of_the_codecs():
    rows = {row[0]: numbers(row[1]) + numbers(row[2]) for row in table(REDIS, "value", "bytes")}
    header, entry = codec.HEADER.itemsize, codec.ENTRY.itemsize
    assert rows["history"] == [header, entry, header + 20 * entry, 20, codec.MAX_BYTES]
    for dtype in FeatureDtype:
        size = dtype.numpy.itemsize
        right = [features.HEADER.itemsize, size, features.HEADER.itemsize + 2 * 64 * size, 2, 64]
        assert rows[f"features in {dtype.name.lower()}"] == right
        alone = [imported.HEADER.itemsize, size, imported.HEADER.itemsize + 64 * size, 64]
        assert rows[f"imported vector in {dtype.name.lower()}"] == alone


def test_the_digest_formula_gives_the_vectors():
    formula = after(REDIS, "### Digest")
    shifts = [int(digits) for digits in re.findall(r"z >> (\d+)", formula)]
    factors = [int(digits, 16) for digits in re.findall(r"· (0x[0-9A-F]{16})", formula)]

    def mix(z):
        for shift, factor in zip(shifts, [*factors, 1], strict=True):
            z = (z ^ z >> shift) * factor % 2**64
        return z

    for vector in VECTORS["histories"]:
        blob = bytes.fromhex(vector["hex"])
        header = np.frombuffer(blob, codec.HEADER, 1)[0]
        entries = np.frombuffer(blob, codec.ENTRY, offset=codec.HEADER.itemsize).tolist()
        total = mix(int(header["forgotten_before_ms"]) + 1)
        total += sum(mix((key + mix(word)) % 2**64) for key, word in entries)
        assert f"{total % 2**64:016x}" == vector["digest"]


# --- readers in other languages ----------------------------------------------------------------

NOW_MS = VECTORS["features"][0]["as_of_ms"] + 1_000_000
HALF_LIFE_S = 1800

NODE_MAIN = string.Template("""
import { blend, decodeFeatures, featuresKey } from "$sample";
const read = decodeFeatures(Buffer.from(process.argv[2], "hex"));
console.log(JSON.stringify(read && [
  featuresKey("default", process.argv[3]), read.modelId, read.nSolved, read.vectors.flat(),
  blend(read, $now, $half_life),
]));
""")

GO_MAIN = string.Template("""package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	value, _ := hex.DecodeString(os.Args[1])
	read, ok := Decode(value)
	if !ok {
		fmt.Println("null")
		return
	}
	flat := append(append([]float64{}, read.Vectors[0]...), read.Vectors[1]...)
	key, id := FeaturesKey("default", os.Args[2]), fmt.Sprintf("%016x", read.ModelID)
	line, _ := json.Marshal([]any{key, id, read.NSolved, flat, read.Blend($now, $half_life)})
	fmt.Println(string(line))
}
""")

JAVA_MAIN = string.Template("""
import java.util.Arrays;

class Main {
  public static void main(String[] words) {
    var read = Features.decode(java.util.HexFormat.of().parseHex(words[0]));
    if (read == null) {
      System.out.println("null");
      return;
    }
    var flat = Arrays.stream(read.vectors()).flatMapToDouble(Arrays::stream).toArray();
    System.out.printf(
        "[\\"%s\\", \\"%016x\\", %d, %s, %s]%n", Features.key("default", words[1]), read.modelId(),
        read.nSolved(), Arrays.toString(flat), Arrays.toString(read.blend(${now}L, $half_life)));
  }
}
""")


def need(program):
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"not run: no {program} on the PATH, so its sample was not tried")
    return found


def sample_of(language):
    rest = after(REDIS, f"<!-- sample: {language} -->\n```{language}\n")
    return rest.partition("```")[0]


def run(*words, cwd, too_old=None, **environ):
    done = subprocess.run(
        words,
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        timeout=100,
        check=False,
        text=True,
    )
    if done.returncode and too_old:
        pytest.skip(f"not run: {too_old} is too old for its sample")
    assert done.returncode == 0, done.stderr
    return done.stdout


def node_program(folder):
    node = need("node")
    run(node, "-e", "process.exit(require('zlib').crc32 ? 0 : 1)", cwd=folder, too_old=node)
    sample = (ROOT / "docs" / "examples" / "read_features.mjs").as_uri()
    main = NODE_MAIN.substitute(sample=sample, now=NOW_MS, half_life=HALF_LIFE_S)
    (folder / "main.mjs").write_text(main, encoding="utf-8")
    return node, str(folder / "main.mjs")


def go_program(folder):
    go = need("go")
    (folder / "go.mod").write_text("module features\n\ngo 1.18\n", encoding="utf-8")
    sample = f"package main\n\n{sample_of('go')}"
    (folder / "features.go").write_text(sample, encoding="utf-8")
    main = GO_MAIN.substitute(now=NOW_MS, half_life=HALF_LIFE_S)
    (folder / "main.go").write_text(main, encoding="utf-8")
    # Nothing is fetched; the cache of the user's own builds makes this a second instead of many.
    run(go, "build", "-o", "reader", ".", cwd=folder, GOTOOLCHAIN="local", GOPROXY="off")
    return (str(folder / "reader"),)


def java_program(folder):
    javac, java = need("javac"), need("java")
    run(javac, "--release", "17", "-version", cwd=folder, too_old=javac)
    (folder / "Features.java").write_text(sample_of("java"), encoding="utf-8")
    main = JAVA_MAIN.substitute(now=NOW_MS, half_life=HALF_LIFE_S)
    (folder / "Main.java").write_text(main, encoding="utf-8")
    run(javac, "-Werror", "-encoding", "UTF-8", "Features.java", "Main.java", cwd=folder)
    return java, "-Dsun.jnu.encoding=UTF-8", "-cp", str(folder), "Main"


@pytest.fixture(scope="module", params=[node_program, go_program, java_program])
def foreign_reader(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param.__name__)
    program = request.param(folder)
    return lambda blob: json.loads(run(*program, blob.hex(), USER, cwd=folder))


def test_readers_in_other_languages_agree_with_ours(foreign_reader):
    for vector in VECTORS["features"]:
        blob = bytes.fromhex(vector["hex"])
        key, model_id, n_solved, vectors, blended = foreign_reader(blob)
        assert key == keys.features_key("default", USER)
        assert (model_id, n_solved) == (vector["model_id"], vector["n_solved"])
        assert vectors == np.array(vector["vectors"]).ravel().tolist()
        ours = features.decode_features(blob)
        idle_s = np.array([(NOW_MS - ours.as_of_ms) / 1000])
        right = blend(ours.vectors[None], idle_s, HALF_LIFE_S)[0]
        assert blended == pytest.approx(right.tolist(), abs=1e-6)


def test_readers_in_other_languages_read_every_half(foreign_reader):
    """Signs, zero, subnormal numbers, the least and the greatest of every exponent."""
    bits = np.array(
        [
            sign << 15 | exponent << 10 | fraction
            for sign in (0, 1)
            for exponent in range(31)
            for fraction in (0, 1, 511, 1023)
        ],
        np.uint16,
    )
    blob = bytearray.fromhex(VECTORS["features"][0]["hex"])[: features.HEADER.itemsize]
    blob[6:8] = (len(bits) // 2).to_bytes(2, "little")
    found = foreign_reader(bytes(blob) + bits.astype("<u2").tobytes())[3]
    assert found == bits.view(np.float16).astype(float).tolist()


def test_readers_in_other_languages_refuse_what_ours_refuses(foreign_reader):
    sound = bytes.fromhex(VECTORS["features"][0]["hex"])
    broken = [sound[:-1], sound[:63], b"", *(spoiled(sound, at) for at in (0, 1, 2, 3, 4, 6))]
    for blob in broken:
        assert features.decode_features(blob) is None
        assert foreign_reader(blob) is None, blob[:8]


def spoiled(blob, at):
    return blob[:at] + bytes([blob[at] + 7]) + blob[at + 1 :]


# --- learners.md -------------------------------------------------------------------------------


def test_the_rates_and_the_reasons_are_those_of_the_package():
    page = PAGES["learners.md"]
    assert f"η = {SgdReplay.learning_rate}, λ = {SgdReplay.regularization};" in page
    kept = 1 - SgdReplay.learning_rate * SgdReplay.regularization
    assert f"weigh {1 / kept:.2f} times as much" in page
    assert ", ".join(f"`{reason}`" for reason in LEARNER_FAULTS[:-1]) in page
    assert f"or `{LEARNER_FAULTS[-1]}`" in page
    assert f"| `{LEARNER_FAILED}` |" in PAGES["reader.md"]


# --- cli.md ------------------------------------------------------------------------------------


def test_every_verb_is_told():
    group = LazyGroup()
    right = set()
    for verb in VERBS:
        command = group.get_command(click.Context(group), verb)
        subverbs = command.commands if isinstance(command, click.Group) else {"": None}
        right |= {f"streamer {verb} {subverb}".strip() for subverb in subverbs}
    assert {bare(row[0]) for row in table(CLI, "verb", "what")} == right


def test_every_exit_code_is_told():
    told = [row[0] for row in table(CLI, "code", "meaning")]
    ours = (EXIT_FAILURE, EXIT_UNAVAILABLE, EXIT_TEMPORARY, EXIT_CONFIG, EXIT_WATCHDOG)
    right = sorted({0, click.UsageError.exit_code, *ours})
    assert told == [*map(str, right), "128 + signal"]
