import base64
from pathlib import Path

from streamer.dev.kafka_server import new_cluster_id, server_properties


def parse(text):
    return dict(line.split("=", 1) for line in text.splitlines())


def test_a_broker_listens_on_loopback_only_and_makes_no_topic_unasked():
    properties = parse(server_properties(19092, 19093, Path("data"), {}))
    assert properties["listeners"] == "BROKER://127.0.0.1:19092,CONTROLLER://127.0.0.1:19093"
    assert properties["advertised.listeners"] == "BROKER://127.0.0.1:19092"
    assert properties["controller.quorum.bootstrap.servers"] == "127.0.0.1:19093"
    assert properties["auto.create.topics.enable"] == "false"


def test_properties_given_override_ours():
    text = server_properties(1, 2, Path("data"), {"group.min.session.timeout.ms": "5", "a": "b"})
    properties = parse(text)
    assert properties["group.min.session.timeout.ms"] == "5"
    assert properties["a"] == "b"


def test_a_cluster_id_is_16_bytes_and_never_looks_like_an_option():
    for _ in range(200):
        cluster_id = new_cluster_id()
        assert len(base64.urlsafe_b64decode(cluster_id + "==")) == 16
        assert not cluster_id.startswith("-")
