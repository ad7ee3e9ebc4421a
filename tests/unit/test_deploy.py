"""The deployment's files, held against the program they deploy: settings, verbs, metrics, ports."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamer.cli.main import VERBS
from streamer.config.settings import Settings, load_settings
from streamer.metrics import WorkerMetrics
from streamer.metrics.worker import PARTITION_GAUGES
from streamer.pipeline.records import Partition

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy/docker/Dockerfile").read_text()
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
OURS = [name for name, service in SERVICES.items() if service["image"].startswith("streamer:")]
BOARD_FILE = ROOT / "deploy/grafana/dashboards/streamer.json"
BOARD: dict[str, Any] = json.loads(BOARD_FILE.read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]


def exposed_metrics() -> dict[str, frozenset[str]]:
    """Return the labels of every sample that a worker exposes, by the sample's name."""
    metrics = WorkerMetrics(["play-events"], ["default"])
    partition = Partition("play-events", 0)
    metrics.watch_partitions(lambda: {name: {partition: 1.0} for name in PARTITION_GAUGES})
    # What has no samples before the first trouble, or before the first model.
    metrics.kafka_errors.labels("_TRANSPORT")
    metrics.redis_errors.labels("timeout")
    metrics.model_info.labels("default", "00")
    metrics.model_loaded.labels("default")
    return {
        sample.name: frozenset(sample.labels)
        for family in metrics.registry.collect()
        for sample in family.samples
    }


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\bstreamer_\w+", expression))


def labels_in(expression: str) -> set[str]:
    grouped = ",".join(re.findall(r"\bby \(([^)]*)\)", expression)).replace(" ", "")
    selected = re.findall(r"[{,]\s*(\w+)(?:=~|!=|!~|=)", expression)
    return {*filter(None, grouped.split(",")), *selected}


def settings_of(service: str) -> Settings:
    """Load what the image and the service set, as the program in the container does."""
    image = dict(re.findall(r"(STREAMER__\w+)=(\S+)", DOCKERFILE))
    return load_settings(environ=image | SERVICES[service]["environment"])


def seconds(duration: str) -> float:
    (number, unit) = re.fullmatch(r"(\d+)(s|m)", duration).groups()
    return float(number) * {"s": 1, "m": 60}[unit]


# --- the board ---------------------------------------------------------------------------------


def test_the_checked_in_board_is_what_its_source_makes() -> None:
    render = runpy.run_path(str(ROOT / "deploy/grafana/build_board.py"))["render"]
    assert BOARD_FILE.read_text() == render()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_query_asks_for_metrics_that_a_worker_exposes(expression: str) -> None:
    exposed = exposed_metrics()
    asked = metrics_in(expression)
    assert asked
    assert asked <= set(exposed)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_query_uses_labels_that_its_metrics_have(expression: str) -> None:
    exposed = exposed_metrics()
    known = {"instance"}.union(*(exposed[name] for name in metrics_in(expression)))
    assert labels_in(expression) <= known


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_of_a_query_is_limited_to_the_chosen_workers(expression: str) -> None:
    selected = re.findall(r'\bstreamer_\w+\{instance=~"\$instance"[,}]', expression)
    assert len(selected) == len(re.findall(r"\bstreamer_\w+", expression))


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_legend_names_only_labels_that_its_query_keeps(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert named <= labels_in(target["expr"])


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_says_what_it_means_and_in_which_unit(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 30
    assert panel["fieldConfig"]["defaults"]["unit"]


def test_panels_lie_on_the_board_and_not_on_each_other() -> None:
    cells = [
        {(x, y) for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])}
        for p in (panel["gridPos"] for panel in BOARD["panels"])
    ]
    assert all(x < 24 for panel in cells for x, _ in panel)
    assert all(first.isdisjoint(second) for first, second in combinations(cells, 2))
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def test_the_board_lets_choose_the_datasource_and_the_workers() -> None:
    assert {variable["name"] for variable in BOARD["templating"]["list"]} == {
        "datasource",
        "instance",
    }
    used = {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]}
    assert used == {"${datasource}"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_parses_every_query(tmp_path: Path) -> None:
    concrete = [
        text.replace("$__rate_interval", "20s").replace("$__range", "15m") for text in EXPRESSIONS
    ]
    rules = [{"record": f"query:{n}", "expr": text} for n, text in enumerate(concrete)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    subprocess.run(["promtool", "check", "rules", file], check=True, capture_output=True)  # noqa: S607


# --- compose -----------------------------------------------------------------------------------


@pytest.mark.parametrize("service", OURS)
def test_a_service_sets_only_settings_that_exist_to_values_that_fit(service: str) -> None:
    assert isinstance(settings_of(service), Settings)


@pytest.mark.parametrize("service", OURS)
def test_a_service_runs_verbs_that_exist(service: str) -> None:
    command = SERVICES[service]["command"]
    verbs = re.findall(r"^streamer (\w+)", command[0], re.MULTILINE) or [command[0]]
    assert set(verbs) <= set(VERBS)


@pytest.mark.parametrize("service", OURS)
def test_our_services_hold_no_rights_and_write_nowhere(service: str) -> None:
    assert SERVICES[service]["read_only"] is True
    assert SERVICES[service]["cap_drop"] == ["ALL"]
    assert SERVICES[service]["security_opt"] == ["no-new-privileges:true"]


def test_every_foreign_image_is_pinned_to_a_patch_release() -> None:
    images = [service["image"] for service in SERVICES.values() if "build" not in service]
    images += re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(images) == 6
    for image in images:
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(-[a-z-]+)?", image), image


def test_ports_are_published_on_the_loopback_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_every_service_has_a_health_check_or_says_that_it_has_none() -> None:
    for name, service in SERVICES.items():
        check = service.get("healthcheck", {})
        from_the_image = name == "worker"
        assert from_the_image or check.get("disable") or check.get("test"), name


def test_a_worker_is_given_longer_to_stop_than_it_takes_to_drain() -> None:
    drain = settings_of("worker").worker.drain_timeout_seconds
    assert seconds(SERVICES["worker"]["stop_grace_period"]) >= drain + 5


def test_a_worker_starts_after_the_topics_exist() -> None:
    needs = SERVICES["worker"]["depends_on"]
    assert needs["topics"]["condition"] == "service_completed_successfully"
    assert needs["redis"]["condition"] == needs["kafka"]["condition"] == "service_healthy"


def test_two_workers_read_the_models_that_the_trainer_publishes() -> None:
    assert SERVICES["worker"]["deploy"]["replicas"] == 2
    assert settings_of("worker").models.directory == settings_of("model").models.directory
    assert SERVICES["worker"]["volumes"] == ["models:/models:ro"]
    assert SERVICES["model"]["volumes"] == ["models:/models"]


def test_prometheus_scrapes_the_port_on_which_every_worker_listens() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (discovery,) = config["scrape_configs"][0]["dns_sd_configs"]
    metrics = settings_of("worker").metrics
    assert discovery["names"] == ["worker"]
    assert discovery["port"] == metrics.port
    assert metrics.host == "0.0.0.0"  # noqa: S104  inside the container


def test_the_datasource_knows_the_scrape_interval() -> None:
    scrape = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    file = ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml"
    (source,) = yaml.safe_load(file.read_text())["datasources"]
    assert source["jsonData"]["timeInterval"] == scrape["global"]["scrape_interval"]


def test_redis_never_evicts_and_keeps_a_log() -> None:
    config = (ROOT / "deploy/redis/redis.conf").read_text().splitlines()
    assert {"maxmemory-policy noeviction", "appendonly yes", "appendfsync everysec"} <= set(config)


# --- image -------------------------------------------------------------------------------------


def test_the_image_runs_the_program_itself_as_a_numbered_user() -> None:
    assert re.search(r'^ENTRYPOINT \["streamer"\]$', DOCKERFILE, re.MULTILINE)
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)


def test_the_health_check_asks_the_default_port() -> None:
    port = Settings().metrics.port
    assert f"'STREAMER__METRICS__PORT', '{port}'" in DOCKERFILE
    assert f"EXPOSE {port}" in DOCKERFILE


def test_what_the_image_takes_from_the_developers_lock_file_is_there() -> None:
    locked = set(
        re.findall(r"^([\w-]+)==", (ROOT / "requirements/dev.txt").read_text(), re.MULTILINE)
    )
    picked = [names.split("|") for names in re.findall(r"/\^\(([\w|-]+)\)==/", DOCKERFILE)]
    assert len(picked) == 2
    assert {name for names in picked for name in names} <= locked
