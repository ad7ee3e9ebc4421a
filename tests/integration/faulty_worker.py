"""`streamer worker` whose source has a fault: a program that tests start.

The file that STREAMER_TEST_FAULT names holds, once it exists, what every poll does from then on:
`hang` never returns, `fail` ends the process as a client does that has failed for good.
"""

import os
import threading
from pathlib import Path

from streamer import app
from streamer.cli.main import main
from streamer.errors import RestartNeeded
from streamer.kafka.source import KafkaSource

FAULT = Path(os.environ["STREAMER_TEST_FAULT"])


class FaultySource(KafkaSource):
    def poll(self, max_records, timeout_seconds):
        fault = FAULT.read_text() if FAULT.exists() else ""
        if fault == "hang":
            threading.Event().wait()
        if fault == "fail":
            raise RestartNeeded("the test wants it so")
        return super().poll(max_records, timeout_seconds)


if __name__ == "__main__":
    app.KafkaSource = FaultySource
    main()
