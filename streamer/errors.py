"""One tree of errors, grouped by what the caller must do.

StreamerError
├── ConfigError        stop: the operator must edit the configuration (exit 78)
├── ModelError         refuse this model, keep the live one
├── LearnerError       take the variant out of service, keep the stream
├── RejectedRecord     dead-letter this one record; ``.reason`` is one of a closed set of labels
├── TransientError     a command gives up with exit 69; a running worker pauses and retries
│   ├── StoreUnavailable
│   └── BrokerUnavailable
├── StoreForgot        rewind: Redis lost writes that it had acknowledged
└── RestartNeeded      end the process (exit 75); a supervisor starts it again, which is safe

Adapters translate vendor exceptions into these at their own boundary, with ``raise ... from``.
"""

from __future__ import annotations


class StreamerError(Exception):
    """Everything that streamer raises on purpose."""


class ConfigError(StreamerError):
    """The configuration is wrong; the message names the setting and what would be right."""


class ModelError(StreamerError):
    """An item model must be refused; the message names the file, and the row where there is one."""


class LearnerError(StreamerError):
    """A learner failed, or gave an answer that must not be published; the message names it.

    Attributes:
        reason: A label of the closed set ``streamer.factors.LEARNER_FAULTS``.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class RejectedRecord(StreamerError):
    """One record cannot be learned from and belongs in the dead letters.

    Attributes:
        reason: A label of the closed set ``streamer.events.RejectReason``.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class TransientError(StreamerError):
    """The other side did not answer; the same call may succeed later.

    Attributes:
        kind: What happened, one of a small closed set of labels.
    """

    def __init__(self, message: str, kind: str = "other") -> None:
        super().__init__(message)
        self.kind = kind


class StoreUnavailable(TransientError):
    """Redis did not answer in time, or refused for the moment."""


class BrokerUnavailable(TransientError):
    """Kafka did not answer in time, or refused for the moment."""


class StoreForgot(StreamerError):
    """Redis lost writes that it had acknowledged; everything since the marks must come again."""


class RestartNeeded(StreamerError):
    """This process cannot go on, a new one can."""
