import threading

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from streamer.metrics import BucketedHistogram

EDGES = (0.005, 0.1, 1, 2.5, 300)


def made(edges=EDGES):
    registry = CollectorRegistry()
    return BucketedHistogram("delay_seconds", "How long.", "topic", edges, registry), registry


def samples(registry):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_it_counts_like_the_clients_own_histogram():
    values = np.concatenate(
        [np.random.default_rng(1).exponential(1.0, 1000), EDGES, [0.0, -1.0, 1e9]]
    )
    histogram, registry = made()
    theirs_registry = CollectorRegistry()
    theirs = Histogram(
        "delay_seconds", "How long.", ["topic"], buckets=EDGES, registry=theirs_registry
    )
    for part in np.array_split(values, 7):
        histogram.observe("plays", part)
    for value in values:
        theirs.labels("plays").observe(value)
    assert samples(registry) == pytest.approx(samples(theirs_registry))


def test_an_edge_belongs_to_the_bucket_below_it():
    histogram, registry = made()
    histogram.observe("plays", np.array([1.0, np.nextafter(1.0, 2.0)]))
    found = samples(registry)
    assert found["delay_seconds_bucket", ("le", "1.0"), ("topic", "plays")] == 1
    assert found["delay_seconds_bucket", ("le", "2.5"), ("topic", "plays")] == 2
    assert found["delay_seconds_bucket", ("le", "+Inf"), ("topic", "plays")] == 2


def test_a_touched_series_is_seen_with_zeros():
    histogram, registry = made()
    histogram.touch("plays")
    found = samples(registry)
    assert len(found) == len(EDGES) + 3  # the buckets, +Inf, count and sum
    assert set(found.values()) == {0}
    histogram.observe("plays", np.array([0.5]))
    histogram.touch("plays")
    assert samples(registry)["delay_seconds_count", ("topic", "plays")] == 1


def test_series_are_apart_and_sums_add_up():
    histogram, registry = made()
    histogram.observe("plays", np.array([0.5, 1.5]))
    histogram.observe("browses", np.array([10.0]))
    histogram.observe("plays", np.array([2.0]))
    found = samples(registry)
    assert found["delay_seconds_sum", ("topic", "plays")] == 4.0
    assert found["delay_seconds_sum", ("topic", "browses")] == 10.0
    assert found["delay_seconds_count", ("topic", "plays")] == 3


def test_nothing_observed_is_nothing_shown():
    _, registry = made()
    assert samples(registry) == {}


def test_a_name_is_taken_once():
    _, registry = made()
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        BucketedHistogram("delay_seconds", "Again.", "topic", EDGES, registry)


def test_a_scrape_meanwhile_loses_no_observation():
    histogram, registry = made()

    def observe_many():
        for _ in range(300):
            histogram.observe("plays", np.ones(10))

    threads = [threading.Thread(target=observe_many) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        generate_latest(registry)
    for thread in threads:
        thread.join()
    assert samples(registry)["delay_seconds_count", ("topic", "plays")] == 9000
