"""The sections of the configuration: one frozen model each, one line per field, with its unit.

A default stands here and nowhere else. Classes further down take plain values.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
)

from streamer.factors import DEFAULT_LEARNER

VariantName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,32}$")]
TopicName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,200}$")]
GroupId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,200}$")]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
OURS: Final = frozenset(
    {
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
    }
)
"""Settings of librdkafka that an operator must not pass through."""

Port = Annotated[int, Field(ge=0, le=65_535)]


def _as_client_settings(values: object) -> object:
    """Spell settings librdkafka's way.

    The environment's ``SASL_PASSWORD`` is ``sasl.password``, and so is TOML's unquoted
    ``sasl.password = ...``, which TOML itself reads as a table in a table.
    """
    return dict(_flat(values, "")) if isinstance(values, dict) else values


def _ensure_passable(values: dict[str, str]) -> dict[str, str]:
    """Refuse what the guarantees rest on."""
    for name in sorted(values.keys() & OURS):
        msg = f"{name} is set by streamer itself, its guarantees rest on it"
        raise ValueError(msg)
    return values


def _flat(values: dict[object, object], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        full = f"{prefix}{name}".lower().replace("_", ".")
        if isinstance(value, dict):
            yield from _flat(value, f"{full}.")
        else:
            yield full, str(value).lower() if isinstance(value, bool) else str(value)


ClientSettings = Annotated[
    dict[str, str], BeforeValidator(_as_client_settings), AfterValidator(_ensure_passable)
]


class Section(BaseModel):
    """A part of the configuration; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSection(Section):
    """Where events come from. ``[kafka.client]`` is handed to librdkafka as it is."""

    bootstrap_servers: str = Field(
        "127.0.0.1:9092", min_length=1, description="host:port, comma-separated"
    )
    group_id: GroupId = Field("streamer", description="the workers' consumer group")
    play_topic: TopicName = Field("play-events", description="topic of play events")
    browse_topic: TopicName = Field("browse-events", description="topic of browse events")
    dead_letter_suffix: str = Field(
        ".dlq", pattern=r"^[A-Za-z0-9._-]{1,32}$", description="appended to a topic's name"
    )
    group_protocol: Literal["auto", "consumer", "classic"] = Field(
        "auto",
        description="auto: `consumer` where the broker offers it, else `classic` with `range`",
    )
    client: ClientSettings = Field(
        default_factory=dict, description="passed through: SASL, TLS, fetch sizes"
    )

    @property
    def topics(self) -> tuple[str, str]:
        """Both event topics."""
        return (self.play_topic, self.browse_topic)


class RedisSection(Section):
    """Where histories and features live."""

    url: str = Field(
        "redis://127.0.0.1:6379/0",
        pattern=r"^rediss?(\+cluster)?://",
        description="redis:// or rediss://; of a Redis Cluster redis+cluster:// or "
        "rediss+cluster:// with any of its nodes, comma-separated",
    )
    username: str | None = Field(None, description="ACL user; may also be part of the URL")
    password: SecretStr | None = Field(None, description="prefer the environment or PASSWORD_FILE")
    timeout_seconds: Seconds = Field(
        1.0, description="of one connection attempt and of one command"
    )
    tombstone_days: float = Field(
        30.0,
        gt=0,
        le=3650,
        description="how long a forgotten user's marker stays; longer than any topic's retention",
    )
    expire_after_days: float = Field(
        0.0, ge=0, le=3650, description="drop users after this inactivity; 0 keeps them"
    )


class WorkerSection(Section):
    """The loop of one worker process."""

    batch_records: int = Field(
        10_000, ge=1, le=20_000, description="at most so many records a batch; reached by a backlog"
    )
    poll_timeout_seconds: float = Field(
        0.2, gt=0, le=0.2, description="longest wait for a record; delays SIGTERM"
    )
    checkpoint_interval_seconds: float = Field(
        1.0, gt=0, le=60, description="between marks, stored offsets and st:fresh"
    )
    cache_users: int = Field(
        100_000, ge=1, le=10_000_000, description="histories kept in memory, about 1 kB each"
    )
    sweep_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of its time that a worker may give to folding in, after a publish, "
        "users whom no event touches; 0: none",
    )
    start_timeout_seconds: float = Field(
        5.0, gt=0, le=10, description="how long an unreachable Kafka or Redis is tried at start"
    )
    drain_timeout_seconds: Seconds = Field(
        10.0, description="from SIGTERM, for the batch in hand; 5 s more to leave"
    )
    watchdog_timeout_seconds: Seconds = Field(
        120.0, description="a loop that has not turned for so long is ended, exit 70"
    )


class ModelsSection(Section):
    """Which item model and which learner the worker folds in with."""

    directory: Path = Field(
        Path("models"),
        description="where `model publish` puts models, shared by workers and readers",
    )
    variant: VariantName = Field("default", description="the variant that this deployment serves")
    learner: str = Field(
        DEFAULT_LEARNER,
        min_length=1,
        description="a built-in, `streamer learners list` shows them, or `package.module:Class`",
    )
    experiments: Path | None = Field(
        None,
        description="a file of experiments; a worker keeps every variant in it fresh, "
        "beside `variant`",
    )
    poll_interval_seconds: Seconds = Field(
        0.5, description="between looks at the live models' pointers"
    )


class ExperimentsSection(Section):
    """What workers measure for experiments."""

    sample_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="of first plays, how many are scored before they are learned; 0 is none",
    )
    max_cpu_share: float = Field(
        0.08,
        gt=0,
        le=0.5,
        description="of a worker's CPU, how much scoring may take; plays beyond it are not scored",
    )
    keep_days: float = Field(
        90.0,
        ge=1,
        le=3650,
        description="how long sums of an experiment stay in Redis after the last write to them",
    )


class FeaturesSection(Section):
    """How vectors are stored."""

    dtype: Literal["f16", "f32"] = Field(
        "f16", description="f16 halves the memory and costs 3e-4 of precision"
    )


class MetricsSection(Section):
    """/metrics, /livez and /readyz."""

    host: str = Field(
        "127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 in a container"
    )
    port: Port = Field(9464, description="0 takes a free one and logs it")
    delay_trace: Path | None = Field(
        None,
        description="append every record's delay (float64 seconds, little-endian) to this file",
    )


class LogSection(Section):
    """What a worker says."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="quieter or louder"
    )
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: console on a terminal, else JSON"
    )
