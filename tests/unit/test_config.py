"""Defaults < file < environment; a name we do not know is refused, and secrets never print."""

import re

import pytest
from pydantic import ValidationError

from streamer.config import Settings, explain_settings, load_settings
from streamer.errors import ConfigError

SECRET = "hunter2-do-not-print"  # noqa: S105  planted, to be looked for


@pytest.fixture
def written(tmp_path):
    """Write a TOML file and return its path."""

    def write(text):
        path = tmp_path / "streamer.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path=None, **environ):
    with pytest.raises(ConfigError) as caught:
        load_settings(path, environ)
    message = str(caught.value)
    assert "\n" not in message
    return message


def explained(settings, path=None, **environ):
    rows = explain_settings(settings, path, environ)
    return {name: (value, source) for name, value, source in rows}


# --- where a value comes from --------------------------------------------------------------------


def test_without_a_file_and_an_environment_everything_is_a_default():
    settings = load_settings(None, {})
    assert settings == Settings()
    assert settings.kafka.topics == ("play-events", "browse-events")
    assert {source for _, source in explained(settings).values()} == {"default"}


def test_the_environment_wins_over_the_file_and_the_file_over_defaults(written):
    path = written('[kafka]\ngroup_id = "of-file"\nplay_topic = "plays"\n[worker]\ncache_users = 7')
    environ = {"STREAMER__KAFKA__GROUP_ID": "of-env", "STREAMER__WORKER__BATCH_RECORDS": "9"}
    settings = load_settings(path, environ)
    assert (settings.kafka.group_id, settings.kafka.play_topic) == ("of-env", "plays")
    assert (settings.worker.cache_users, settings.worker.batch_records) == (7, 9)
    assert settings.kafka.browse_topic == "browse-events"
    rows = explained(settings, path, **environ)
    assert rows["kafka.group_id"] == ("of-env", "environment")
    assert rows["kafka.play_topic"] == ("plays", "file")
    assert rows["kafka.browse_topic"] == ("browse-events", "default")
    assert rows["worker.batch_records"] == ("9", "environment")
    assert rows["worker.cache_users"] == ("7", "file")


def test_the_environment_is_the_processs_own_unless_one_is_given(monkeypatch):
    monkeypatch.setenv("STREAMER__LOG__LEVEL", "warning")
    assert load_settings().log.level == "warning"
    assert load_settings(None, {}).log.level == "info"
    rows = {name: source for name, _, source in explain_settings(load_settings())}
    assert rows["log.level"] == "environment"


def test_names_of_the_environment_may_be_lower_case_but_the_prefix_not():
    assert load_settings(None, {"STREAMER__kafka__group_id": "g"}).kafka.group_id == "g"
    assert load_settings(None, {"streamer__kafka__group_id": "g"}).kafka.group_id == "streamer"


@pytest.mark.parametrize("name", ["STREAMER_KAFKA_GROUP_ID", "STREAMERS__X__Y", "KAFKA__GROUP_ID"])
def test_variables_that_are_not_ours_are_ignored(name):
    assert load_settings(None, {name: "g"}) == Settings()


def test_a_comma_makes_no_list():
    servers = "a:9092,b:9092"
    environ = {"STREAMER__KAFKA__BOOTSTRAP_SERVERS": servers}
    assert load_settings(None, environ).kafka.bootstrap_servers == servers


def test_every_setting_is_explained_once():
    names = [name for name, _, _ in explain_settings(Settings(), None, {})]
    assert len(names) == len(set(names))
    assert names == [
        f"{section}.{name}"
        for section, field in Settings.model_fields.items()
        for name in field.annotation.model_fields
    ]


def test_settings_do_not_change_after_loading():
    settings = load_settings(None, {})
    for change in (
        lambda: setattr(settings, "kafka", None),
        lambda: setattr(settings.kafka, "group_id", "other"),
    ):
        with pytest.raises(ValidationError, match="frozen"):
            change()


# --- names nobody knows --------------------------------------------------------------------------


def test_an_unknown_section_of_the_file_is_refused(written):
    path = written("[kafak]\ngroup_id = 'g'")
    message = refusal(path)
    assert message.startswith(f"{path}: [kafak] is not a setting; known: experiments, features, ")


def test_an_unknown_name_of_the_file_is_refused_with_its_sections_names(written):
    path = written("[kafka]\ngroupid = 'g'")
    message = refusal(path)
    assert message.startswith(f"{path}: [kafka] groupid is not a setting; known: bootstrap_servers")
    assert "group_id" in message
    assert "batch_records" not in message


def test_an_unknown_section_of_the_environment_is_refused():
    message = refusal(STREAMER__KAFAK__GROUP_ID="g")
    assert message.startswith("STREAMER__KAFAK")
    assert "is not a setting; known: experiments, features, kafka, log, metrics" in message


def test_an_unknown_name_of_the_environment_is_refused():
    message = refusal(STREAMER__KAFKA__GROUPID="g")
    assert message.startswith("STREAMER__KAFKA__GROUPID is not a setting; known: ")
    assert "group_id" in message


def test_the_environment_is_named_where_the_file_is_right(written):
    path = written("[kafka]\ngroup_id = 'g'")
    message = refusal(path, STREAMER__KAFKA__GROUPID="g")
    assert message.startswith("STREAMER__KAFKA__GROUPID is not")


@pytest.mark.parametrize(
    "environ",
    [
        {"STREAMER__": "x"},
        {"STREAMER__KAFKA": "x"},
        {"STREAMER__KAFKA__": "x"},
        {"STREAMER__KAFKA__GROUP_ID__X": "x"},
        {"STREAMER__KAFKA__CLIENT": "x"},
        {"STREAMER__KAFKA__CLIENT": "x", "STREAMER__KAFKA__CLIENT__SASL_PASSWORD": SECRET},
        {"STREAMER__WORKER__BATCH_RECORDS": "1", "STREAMER__WORKER__BATCH_RECORDS__X": "1"},
        {"STREAMER__WORKER__BATCH_RECORDS__X": "1"},
        {"STREAMER__KAFKA__CLIENT__SASL_PASSWORD": SECRET, "STREAMER__KAFKA__client": "x"},
        {"STREAMER__WORKER__BATCH_RECORDS__X": "1", "STREAMER__WORKER__batch_records": "1"},
    ],
)
def test_a_variable_of_a_wrong_shape_is_refused_in_one_line(environ):
    message = refusal(**environ)
    assert "STREAMER__" in message
    assert SECRET not in message


# --- values that do not fit ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kafka.group_id", ""),
        ("kafka.group_id", "a b"),
        ("kafka.group_id", "x" * 201),
        ("kafka.play_topic", "a/b"),
        ("kafka.bootstrap_servers", ""),
        ("kafka.group_protocol", "fast"),
        ("kafka.dead_letter_suffix", ""),
        ("redis.url", "http://localhost"),
        ("redis.url", "unix:///run/redis.sock"),
        ("redis.url", "localhost:6379"),
        ("redis.timeout_seconds", "0"),
        ("redis.timeout_seconds", "1s"),
        ("redis.timeout_seconds", "nan"),
        ("redis.timeout_seconds", "inf"),
        ("redis.timeout_seconds", "86401"),
        ("redis.tombstone_days", "0"),
        ("redis.expire_after_days", "-1"),
        ("worker.batch_records", "0"),
        ("worker.batch_records", "20001"),
        ("worker.batch_records", "2.5"),
        ("worker.batch_records", "many"),
        ("worker.poll_timeout_seconds", "0.21"),
        ("worker.poll_timeout_seconds", "200"),  # meant as milliseconds
        ("worker.checkpoint_interval_seconds", "61"),
        ("worker.cache_users", "0"),
        ("models.variant", "Default"),
        ("models.variant", "a" * 33),
        ("models.variant", "a:b"),
        ("features.dtype", "f64"),
        ("metrics.port", "65536"),
        ("metrics.port", "-1"),
        ("log.level", "INFO"),
        ("log.format", "xml"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name_wherever_it_stands(name, value, written):
    section, field = name.split(".")
    variable = f"STREAMER__{section.upper()}__{field.upper()}"
    assert refusal(**{variable: value}).startswith(f"{variable}: ")
    path = written(f"[{section}]\n{field} = '{value}'")
    assert refusal(path).startswith(f"{path}: [{section}] {field}: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("worker.poll_timeout_seconds", "0.2"),
        ("worker.batch_records", "1"),
        ("worker.batch_records", "20000"),
        ("metrics.port", "0"),
        ("metrics.port", "65535"),
        ("models.variant", "rows-2_b"),
        ("redis.url", "rediss://cache:6380/0"),
        ("redis.expire_after_days", "0.0"),
    ],
)
def test_a_value_at_its_border_is_taken(name, value):
    section, field = name.split(".")
    settings = load_settings(None, {f"STREAMER__{section.upper()}__{field.upper()}": value})
    assert str(getattr(getattr(settings, section), field)) == value


def test_a_section_that_is_no_table_is_refused(written):
    assert "kafka" in refusal(written("kafka = 5"))


# --- the file ------------------------------------------------------------------------------------


def test_a_file_that_is_missing_or_no_toml_is_refused(written, tmp_path):
    missing = tmp_path / "missing.toml"
    assert refusal(missing).startswith(f"cannot read {missing}: No such file")
    assert refusal(tmp_path).startswith(f"cannot read {tmp_path}: ")
    path = written("[kafka\n")
    assert refusal(path).startswith(f"{path} is not TOML: ")
    path.write_bytes(b"\xff")
    assert refusal(path).startswith(f"{path} is not TOML: ")


def test_an_empty_file_is_all_defaults(written):
    assert load_settings(written("# nothing yet\n"), {}) == Settings()


# --- secrets -------------------------------------------------------------------------------------


def test_a_secret_comes_from_a_file_that_a_variable_names(tmp_path):
    path = tmp_path / "password"
    path.write_text(f"{SECRET}\r\n")
    environ = {"STREAMER__REDIS__PASSWORD_FILE": str(path)}
    settings = load_settings(None, environ)
    assert settings.redis.password.get_secret_value() == SECRET
    assert explained(settings, **environ)["redis.password"] == ("********", "environment")


def test_any_setting_may_come_from_a_file(tmp_path):
    path = tmp_path / "value"
    path.write_text(" spaces stay \n")
    environ = {
        "STREAMER__KAFKA__CLIENT__SASL_PASSWORD_FILE": str(path),
        "STREAMER__REDIS__USERNAME_FILE": str(path),
    }
    settings = load_settings(None, environ)
    assert settings.kafka.client == {"sasl.password": " spaces stay "}
    assert settings.redis.username == " spaces stay "


def test_a_file_wins_over_the_plain_variable(tmp_path):
    path = tmp_path / "name"
    path.write_text("of-file")
    environ = {"STREAMER__REDIS__USERNAME": "plain", "STREAMER__REDIS__USERNAME_FILE": str(path)}
    assert load_settings(None, environ).redis.username == "of-file"


def test_a_secret_file_that_cannot_be_read_is_refused_by_its_variable(tmp_path):
    path = tmp_path / "password"
    variable = "STREAMER__REDIS__PASSWORD_FILE"
    assert (
        refusal(**{variable: str(path)}) == f"{variable} names a file that cannot be read: {path}"
    )
    path.write_bytes(b"\xff\xfe")
    assert refusal(**{variable: str(path)}).startswith(variable)
    assert refusal(**{variable: str(tmp_path)}).startswith(variable)


def test_no_more_of_a_secret_file_is_read_than_a_secret_can_be(tmp_path):
    path = tmp_path / "endless"
    path.write_text("x" * 100_000)
    settings = load_settings(None, {"STREAMER__REDIS__USERNAME_FILE": str(path)})
    assert len(settings.redis.username) == 65_536


SECRET_SETTINGS = [
    ("redis", f'password = "{SECRET}"'),
    ("redis", f'url = "redis://:{SECRET}@cache:6379/0"'),
    ("redis", f'url = "rediss://user:{SECRET}@cache:6379/0"'),
    ("redis", f'url = "redis://user:an@{SECRET}@cache:6379/0"'),  # redis-py takes it like that
    ("redis", f'url = "redis://cache:6379/0?password={SECRET}"'),
    ("redis", f'url = "rediss://cache:6379/0?ssl_ca_certs=/ca&password={SECRET}&db=1"'),
    ("kafka.client", f'"sasl.password" = "{SECRET}"'),
    ("kafka.client", f'SASL_PASSWORD = "{SECRET}"'),
    ("kafka.client", f'"ssl.key.password" = "{SECRET}"'),
    ("kafka.client", f'"ssl.key.pem" = "{SECRET}"'),
    ("kafka.client", f'"ssl.keystore.password" = "{SECRET}"'),
    ("kafka.client", f'"sasl.oauthbearer.client.secret" = "{SECRET}"'),
    ("kafka.client", f'"sasl.oauthbearer.assertion.private.key.passphrase" = "{SECRET}"'),
    ("kafka.client", f'"any.passphrase" = "{SECRET}"'),
    ("kafka.client", f'"any.token" = "{SECRET}"'),
    ("kafka.client", f'"any.private.thing" = "{SECRET}"'),
    ("kafka.client", f'"sasl.jaas.config" = "{SECRET}"'),
    ("kafka.client", f'sasl.password = "{SECRET}"'),  # TOML reads a table in a table
]


@pytest.mark.parametrize(("section", "line"), SECRET_SETTINGS)
def test_a_secret_is_masked_wherever_settings_are_shown(section, line, written):
    path = written(f"[{section}]\n{line}")
    try:
        settings = load_settings(path, {})
    except ConfigError as error:  # refusing the spelling is as good as masking it
        assert SECRET not in str(error)  # noqa: PT017
        return
    shown = list(explain_settings(settings, path, {}))
    assert SECRET not in str(shown)
    assert "********" in str(shown)
    assert SECRET not in repr(settings.redis.password)


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("redis", f'pasword = "{SECRET}"'),
        ("redis", f'password = ["{SECRET}"]'),
        ("redis", f'url = "{SECRET}"'),
        ("log", f'level = "{SECRET}"'),
    ],
)
def test_a_refused_value_is_not_repeated(section, line, written):
    assert SECRET not in refusal(written(f"[{section}]\n{line}"))


def test_what_is_no_secret_is_shown():
    environ = {
        "STREAMER__REDIS__URL": "redis://cache:6379/0",
        "STREAMER__KAFKA__CLIENT__SASL_USERNAME": "worker-7",
        "STREAMER__KAFKA__CLIENT__SSL_KEY_LOCATION": "/run/key",
    }
    rows = explained(load_settings(None, environ), **environ)
    assert rows["redis.url"] == ("redis://cache:6379/0", "environment")
    assert "worker-7" in rows["kafka.client"][0]
    assert "/run/key" in rows["kafka.client"][0]
    assert rows["redis.password"] == ("None", "default")


# --- [kafka.client] ------------------------------------------------------------------------------


def test_client_settings_are_spelled_from_the_environment_and_joined_with_the_files(written):
    path = written(
        '[kafka.client]\n"security.protocol" = "SSL"\n"queued.min.messages" = 5000\n'
        '"enable.random.seed" = false\n"sasl.username" = "of-file"'
    )
    environ = {
        "STREAMER__KAFKA__CLIENT__SASL_USERNAME": "of-env",
        "STREAMER__KAFKA__CLIENT__SASL_PASSWORD": SECRET,
    }
    settings = load_settings(path, environ)
    assert settings.kafka.client == {
        "security.protocol": "SSL",
        "queued.min.messages": "5000",
        "enable.random.seed": "false",
        "sasl.username": "of-env",
        "sasl.password": SECRET,
    }
    assert explained(settings, path, **environ)["kafka.client"][1] == "environment"


def test_a_value_keeps_its_case_and_its_name_does_not():
    settings = load_settings(None, {"STREAMER__KAFKA__CLIENT__SECURITY_PROTOCOL": "SASL_SSL"})
    assert settings.kafka.client == {"security.protocol": "SASL_SSL"}


def test_a_table_in_a_table_is_the_dotted_name_that_was_meant(written):
    path = written("[kafka.client]\nsasl.username = 'w'\nssl.key.location = '/k'\nlinger.ms = 5")
    assert load_settings(path, {}).kafka.client == {
        "sasl.username": "w",
        "ssl.key.location": "/k",
        "linger.ms": "5",
    }


@pytest.mark.parametrize(
    "name",
    [
        "acks",
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "group.id",
        "group.protocol",
        "group.remote.assignor",
        "partition.assignment.strategy",
    ],
)
def test_what_the_guarantees_rest_on_is_not_passed_through(name, written):
    path = written(f'[kafka.client]\n"{name}" = "x"')
    assert f"{name} is set by streamer itself" in refusal(path)
    variable = f"STREAMER__KAFKA__CLIENT__{name.upper().replace('.', '_')}"
    assert f"{name} is set by streamer itself" in refusal(**{variable: "x"})


def test_documented_names_are_the_names_there_are():
    for name, _, _ in explain_settings(Settings(), None, {}):
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", name)
