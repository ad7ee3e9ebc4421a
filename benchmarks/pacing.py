"""A producer that keeps a pace, as a process of its own: ``python -m benchmarks.pacing JSON``.

Events are drawn and encoded before the first one is sent, so that little but librdkafka competes
with who is measured. At its end it prints how many it sent and in what time.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Final

from confluent_kafka import Producer

from benchmarks.workload import World, draw, encode_events

TICK_SECONDS: Final = 0.002


def pace(bootstrap_servers: str, topics: list[str], rate: int, seconds: float, world: World) -> int:
    """Produce `rate` events a second; return how many."""
    n_events = round(rate * seconds)
    columns = draw(world, n_events, round(time.time() * 1000), stream=3)
    events = list(encode_events(columns))
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "linger.ms": 1,
            "queue.buffering.max.messages": 2_000_000,
        }
    )
    started = time.monotonic()
    sent = 0
    while sent < n_events:
        due = min(n_events, int((time.monotonic() - started) * rate))
        for event in events[sent:due]:
            producer.produce(topics[event.topic], event.value, event.key)
        sent = due
        producer.poll(0)
        time.sleep(TICK_SECONDS)
    producer.flush(30)
    return n_events


def main() -> None:
    """Read the arguments, a JSON object, and produce."""
    told = json.loads(sys.argv[1])
    started = time.monotonic()
    n_events = pace(**(told | {"world": World(**told["world"])}))
    print(json.dumps({"sent": n_events, "seconds": time.monotonic() - started}))


if __name__ == "__main__":
    main()
