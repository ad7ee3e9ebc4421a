"""Logs: JSON in service, readable on a terminal; past-tense events with keys and values."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog


def configure_logging(
    level: str, log_format: Literal["auto", "json", "console"], **labels: int
) -> None:
    """Send structured logs to standard error; call once, before the first line.

    Args:
        level: The quietest that is said.
        log_format: `auto` is for people on a terminal, else JSON.
        labels: What every line carries, such as which of several workers speaks.
    """
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            lambda _, __, entry: {**entry, **labels},
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
