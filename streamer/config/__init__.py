"""The settings of every verb: sections, loading, and where each value came from."""

from streamer.config.sections import (
    ExperimentsSection,
    FeaturesSection,
    KafkaSection,
    LogSection,
    MetricsSection,
    ModelsSection,
    RedisSection,
    WorkerSection,
)
from streamer.config.settings import Settings, explain_settings, load_settings

__all__ = [
    "ExperimentsSection",
    "FeaturesSection",
    "KafkaSection",
    "LogSection",
    "MetricsSection",
    "ModelsSection",
    "RedisSection",
    "Settings",
    "WorkerSection",
    "explain_settings",
    "load_settings",
]
