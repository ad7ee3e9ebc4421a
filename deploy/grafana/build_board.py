#!/usr/bin/env python3
"""Write the board that Grafana reads (`dashboards/streamer.json`) from the panels in `fleet.toml`.

The TOML holds what a person decides: what a panel means, what is normal, its queries. Everything
that Grafana wants besides, ids and places included, is derived here. Needs no package; writes the
same bytes every time.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from string import ascii_uppercase
from typing import Any

SOURCE = Path(__file__).with_name("fleet.toml")
TARGET = Path(__file__).with_name("dashboards") / "streamer.json"

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
SELECTION = 'instance=~"$instance"'
BOARD_WIDTH = 24
HEIGHTS = {"stat": 4, "timeseries": 8, "table": 8}
OPTIONS: dict[str, dict[str, Any]] = {
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "value",
    },
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "table": {"showHeader": True, "cellHeight": "sm"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel, named as in the TOML; a name that is not here is refused."""

    title: str
    description: str
    width: int
    queries: dict[str, str]
    kind: str = "timeseries"
    unit: str = "short"
    decimals: int | None = None
    stacked: bool = False
    min: float | str = 0
    max: float | None = None
    colors: list[Any] = field(default_factory=list)


def build_board() -> dict[str, Any]:
    """Return the board as Grafana reads it."""
    source = tomllib.loads(SOURCE.read_text(encoding="utf-8"))
    rows = [(row["title"], [Panel(**panel) for panel in row["panels"]]) for row in source["rows"]]
    return {
        "uid": source["uid"],
        "title": source["title"],
        "description": source["description"],
        "tags": ["streamer"],
        "schemaVersion": 41,
        "editable": False,
        "graphTooltip": 1,
        "time": {"from": "now-15m", "to": "now"},
        "refresh": "5s",
        "templating": {"list": [_datasource_variable(), _instance_variable()]},
        "panels": _lay_out(rows),
    }


def render() -> str:
    """Return the content of the checked-in file."""
    return json.dumps(build_board(), indent=2) + "\n"


def _lay_out(rows: list[tuple[str, list[Panel]]]) -> list[dict[str, Any]]:
    """Place the panels of each row from left to right; a line is as high as its first panel."""
    ids = count(1)
    placed: list[dict[str, Any]] = []
    y = 0
    for title, panels in rows:
        place = {"h": 1, "w": BOARD_WIDTH, "x": 0, "y": y}
        header = {"id": next(ids), "type": "row", "title": title, "collapsed": False}
        placed.append(header | {"gridPos": place, "panels": []})
        y += 1
        x = height = 0
        for panel in panels:
            if x + panel.width > BOARD_WIDTH:
                x, y = 0, y + height
            if x == 0:
                height = HEIGHTS[panel.kind]
            place = {"h": height, "w": panel.width, "x": x, "y": y}
            placed.append({"id": next(ids)} | _panel(panel) | {"gridPos": place})
            x += panel.width
        y += height
    return placed


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": " ".join(panel.description.split()),
        "datasource": DATASOURCE,
        "targets": [
            _target(panel.kind, ref_id, *query)
            for ref_id, query in zip(ascii_uppercase, panel.queries.items(), strict=False)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": OPTIONS[panel.kind],
        "transformations": _transformations(panel.kind),
    }


def _target(kind: str, ref_id: str, legend: str, expression: str) -> dict[str, Any]:
    """A graph asks for a range; a number and a table ask for now."""
    return {
        "refId": ref_id,
        "datasource": DATASOURCE,
        "expr": " ".join(expression.split()).replace("@", SELECTION),
        "legendFormat": legend,
        "instant": kind != "timeseries",
        "range": kind == "timeseries",
        "format": "table" if kind == "table" else "time_series",
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.min != "auto":
        defaults["min"] = panel.min
    if panel.max is not None:
        defaults["max"] = panel.max
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    if panel.colors:
        values = [None, *panel.colors[1::2]]
        steps = [
            {"value": value, "color": color}
            for value, color in zip(values, panel.colors[::2], strict=True)
        ]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 40 if panel.stacked else 8,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if panel.colors else "off"},
        }
    return defaults


def _transformations(kind: str) -> list[dict[str, Any]]:
    """A table of labels needs neither the time nor the constant 1."""
    hidden = {"excludeByName": {"Time": True, "Value": True}}
    return [{"id": "organize", "options": hidden}] if kind == "table" else []


def _datasource_variable() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
    }


def _instance_variable() -> dict[str, Any]:
    query = "label_values(streamer_build_info, instance)"
    return {
        "name": "instance",
        "label": "Worker",
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "instance"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
