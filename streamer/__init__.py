"""Streaming event ingestion and online user-feature updates for recommenders."""

__version__ = "0.1.0"
