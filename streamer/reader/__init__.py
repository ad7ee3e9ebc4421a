"""The public client library: features with an honest status, and what to show a viewer."""

from streamer.reader.async_client import AsyncFeatureReader
from streamer.reader.client import FeatureReader
from streamer.reader.ranking import TopK
from streamer.reader.read import Status, UserRead, blend_many
from streamer.reader.serving import ReaderSettings

__all__ = [
    "AsyncFeatureReader",
    "FeatureReader",
    "ReaderSettings",
    "Status",
    "TopK",
    "UserRead",
    "blend_many",
]
