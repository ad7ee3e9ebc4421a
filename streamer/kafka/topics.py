"""The topics, with the settings that the guarantees rely on; an existing topic is never altered.

Event topics carry the broker's own time (``message.timestamp.type=LogAppendTime``): freshness is
measured from it, and an event dated after it is refused, so that a producer's wrong clock cannot
pin a history. Dead letters are kept longer than events: somebody has to find time to look at them.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NoReturn

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not marked so
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
    TopicMetadata,
)

from streamer.errors import BrokerUnavailable, ConfigError, StreamerError

TIMEOUT_SECONDS: Final = 7.0  # of a whole operation, so that a command gives up within 10 s
MIN_REQUEST_SECONDS: Final = 0.5
LISTED_POLL_SECONDS: Final = 0.05
DAY_MS: Final = 86_400_000
DEAD_LETTER_RETENTION_FACTOR: Final = 4
TIMESTAMP_TYPE: Final = "message.timestamp.type"

# What an operator must put right. Everything else may pass by itself.
OPERATOR_ERRORS: Final = frozenset(
    {
        KafkaError._INVALID_ARG,  # noqa: SLF001  librdkafka's own errors are public under this name
        KafkaError._AUTHENTICATION,  # noqa: SLF001
        KafkaError._SSL,  # noqa: SLF001
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.INVALID_CONFIG,
        KafkaError.POLICY_VIOLATION,
    }
)


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be; ``settings`` are Kafka's, given to it when it is created."""

    name: str
    partitions: int
    replication: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicOutcome:
    """What `create_topics` did or found; ``differences`` say what an existing topic lacks."""

    name: str
    state: Literal["created", "exists", "differs"]
    differences: tuple[str, ...] = ()


def topic_specs(
    event_topics: Sequence[str],
    dead_letter_suffix: str,
    *,
    partitions: int,
    replication: int,
    retention_days: float,
) -> list[TopicSpec]:
    """Return the event topics and then their dead-letter topics, as they should be."""
    retention_ms = round(retention_days * DAY_MS)
    shared = {
        "cleanup.policy": "delete",
        # Of three replicas one may be away; a write that has one copy only is never acknowledged.
        "min.insync.replicas": "2" if replication >= 3 else "1",
    }
    events = {**shared, "retention.ms": str(retention_ms), TIMESTAMP_TYPE: "LogAppendTime"}
    letters = {
        **shared,
        "retention.ms": str(retention_ms * DEAD_LETTER_RETENTION_FACTOR),
        TIMESTAMP_TYPE: "CreateTime",  # a letter keeps its record's time, for a redrive
    }
    names = [name + dead_letter_suffix for name in event_topics]
    return [
        *(TopicSpec(name, partitions, replication, events) for name in event_topics),
        *(TopicSpec(name, 1, replication, letters) for name in names),
    ]


def open_admin(client_settings: Mapping[str, Any]) -> AdminClient:
    """Return a client for the functions below; connects later, in the background.

    It is quiet on stderr: why it reaches no broker becomes part of the error instead.

    Args:
        client_settings: librdkafka's, with ``bootstrap.servers``.

    Raises:
        ConfigError: librdkafka refuses a setting.
    """
    quiet: dict[str, Any] = {"log_level": 0, "error_cb": _raise_reason}
    try:
        return AdminClient({**client_settings, **quiet})
    except KafkaException as error:
        raise ConfigError(f"[kafka.client] {_cause(error).str()}") from error


def create_topics(admin: AdminClient, specs: Sequence[TopicSpec]) -> list[TopicOutcome]:
    """Create the topics that are missing, and say where existing ones differ; may be repeated.

    Returns when every topic is listed by the broker, in the order of ``specs``. More partitions
    than asked for are no difference.

    Raises:
        BrokerUnavailable: No answer within 7 s; what was created until then stays.
        ConfigError: Kafka refuses: permissions, more replicas than brokers, a policy.
    """
    deadline = time.monotonic() + TIMEOUT_SECONDS
    missing = set(missing_topics(admin, [spec.name for spec in specs]))
    created = _create([spec for spec in specs if spec.name in missing], admin, deadline)
    found = _wait_until_listed(admin, [spec.name for spec in specs], deadline)
    old = [spec for spec in specs if spec.name not in created]
    differences = _differences(admin, old, found, deadline)
    return [
        TopicOutcome(spec.name, "created")
        if spec.name in created
        else TopicOutcome(
            spec.name, "differs" if differences[spec.name] else "exists", differences[spec.name]
        )
        for spec in specs
    ]


def missing_topics(
    admin: AdminClient, names: Collection[str], timeout_seconds: float = TIMEOUT_SECONDS
) -> list[str]:
    """Return those of ``names`` that the broker does not have, in their order.

    Raises:
        BrokerUnavailable: No answer in time.
    """
    there = _list(admin, time.monotonic() + timeout_seconds)
    return [name for name in names if name not in there]


def n_brokers(admin: AdminClient, timeout_seconds: float = TIMEOUT_SECONDS) -> int:
    """Return how many brokers the cluster has.

    Raises:
        BrokerUnavailable: No answer in time.
    """
    try:
        return len(admin.list_topics(timeout=timeout_seconds).brokers)
    except KafkaException as error:
        raise _translate(admin, error, "list its brokers") from error


def retention_days(admin: AdminClient, names: Collection[str]) -> dict[str, float]:
    """Return how long each topic keeps its records; infinity if it keeps them for good.

    Raises:
        ConfigError: Kafka refuses to show the topics' settings.
        BrokerUnavailable: No answer within 7 s.
    """
    deadline = time.monotonic() + TIMEOUT_SECONDS
    found = {}
    for name in names:
        retention_ms = int(_topic_settings(admin, name, deadline)["retention.ms"])
        found[name] = retention_ms / DAY_MS if retention_ms >= 0 else float("inf")
    return found


def _create(specs: Sequence[TopicSpec], admin: AdminClient, deadline: float) -> set[str]:
    """Create topics and return the names of those that nobody else created meanwhile."""
    if not specs:
        return set()
    seconds = _left(deadline)
    topics = [
        NewTopic(spec.name, spec.partitions, spec.replication, config=dict(spec.settings))
        for spec in specs
    ]
    answers = admin.create_topics(topics, request_timeout=seconds, operation_timeout=seconds)
    created = set()
    for name, answer in answers.items():
        try:
            answer.result()
        except KafkaException as error:
            if _cause(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise _translate(admin, error, f"create topic {name}") from error
        else:
            created.add(name)
    return created


def _wait_until_listed(
    admin: AdminClient, names: Sequence[str], deadline: float
) -> dict[str, TopicMetadata]:
    """A broker acknowledges a topic a moment before it tells clients about it."""
    while True:
        found = _list(admin, deadline)
        missing = [name for name in names if name not in found]
        if not missing:
            return found
        if time.monotonic() > deadline:
            raise BrokerUnavailable(f"Kafka created topic {missing[0]} but does not list it")
        time.sleep(LISTED_POLL_SECONDS)


def _list(admin: AdminClient, deadline: float) -> dict[str, TopicMetadata]:
    try:
        return admin.list_topics(timeout=_left(deadline)).topics
    except KafkaException as error:
        raise _translate(admin, error, "list its topics") from error


def _differences(
    admin: AdminClient,
    specs: Sequence[TopicSpec],
    found: Mapping[str, TopicMetadata],
    deadline: float,
) -> dict[str, tuple[str, ...]]:
    """Return, for each topic, how it falls short of what the guarantees rely on.

    Retention, replicas and the rest are the operator's to choose.
    """
    differences = {}
    for spec in specs:
        lacks = []
        n_partitions = len(found[spec.name].partitions)
        if n_partitions < spec.partitions:
            lacks.append(f"{n_partitions} partitions, not {spec.partitions}")
        wanted = spec.settings.get(TIMESTAMP_TYPE)
        if wanted is not None:
            actual = _topic_settings(admin, spec.name, deadline)[TIMESTAMP_TYPE]
            if actual != wanted:
                lacks.append(f"{TIMESTAMP_TYPE} is {actual}, not {wanted}")
        differences[spec.name] = tuple(lacks)
    return differences


def _topic_settings(admin: AdminClient, name: str, deadline: float) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, name)
    answers = admin.describe_configs([resource], request_timeout=_left(deadline))
    try:
        entries = answers[resource].result()
    except KafkaException as error:
        raise _translate(admin, error, f"show the settings of topic {name}") from error
    return {name: entry.value for name, entry in entries.items()}


def _left(deadline: float) -> float:
    return max(MIN_REQUEST_SECONDS, deadline - time.monotonic())


def _cause(error: KafkaException) -> KafkaError:
    cause: KafkaError = error.args[0]
    return cause


def _raise_reason(error: KafkaError) -> NoReturn:
    raise KafkaException(error)


def _translate(admin: AdminClient, error: KafkaException, request: str) -> StreamerError:
    """Name the error by what the caller must do, with the reason why no broker was reached."""
    try:
        admin.poll(0)  # where callbacks run: ours raises the first thing that went wrong
    except KafkaException as reason:
        error = reason
    cause = _cause(error)
    if cause.code() in OPERATOR_ERRORS:
        return ConfigError(f"Kafka refused to {request}: {cause.str()}")
    return BrokerUnavailable(f"Kafka did not {request}: {cause.str()}")
