"""``experiments.toml``: from a file of people to a catalog; unknown names are refused.

Field by field in docs/reference/experiments.md.
"""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from streamer.errors import ConfigError
from streamer.experiments import Catalog, Cell, Experiment, Layer, Parameters, SlotRange, Variant
from streamer.experiments.catalog import DEFAULT_MODEL
from streamer.factors import BUILT_INS, DEFAULT_LEARNER

Learner = Annotated[
    str, StringConstraints(pattern=rf"^({'|'.join(BUILT_INS)}|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$")
]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
SlotText = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,4}-[0-9]{1,4}$")]
EARLIEST_START: Final = datetime(2000, 1, 1, tzinfo=UTC)


def _ensure_start(start: datetime) -> datetime:
    """Refuse what events cannot be compared with, or what no key can name."""
    if start.tzinfo is None or start.microsecond or start < EARLIEST_START:
        msg = "expected a time after 2000 with an offset, in whole seconds: 2026-12-01T06:00:00Z"
        raise ValueError(msg)
    return start


Start = Annotated[datetime, Field(strict=True), AfterValidator(_ensure_start)]
Share = Annotated[int, Field(ge=0, le=10_000, strict=True)]


class Part(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LayerPart(Part):
    """``[layers.NAME]``."""

    salt: str = Field(description="divides the users; each layer its own, never changed in a trial")
    parameters: tuple[str, ...] = Field(description="what its cells may set, and no other layer's")


class VariantPart(Part):
    """``[variants.NAME]``."""

    learner: Learner = Field(DEFAULT_LEARNER, description="or `package.module:Class`")
    model: Label = Field(DEFAULT_MODEL, description="a name for what is published to the variant")


class CellPart(Part):
    """``[[experiments.cells]]``."""

    name: str = Field(description="unique in its experiment")
    share: Share = Field(description="of 10,000: so many of its slots are in use, the first ones")
    slots: tuple[SlotText, ...] = Field(
        min_length=1, description="what it owns, `FIRST-LAST`, in the order of growth"
    )
    variant: str | None = Field(None, description="whose features are served")
    blend_half_life_s: float | None = Field(
        None, ge=1e-6, le=1e9, allow_inf_nan=False, description="instead of the model's"
    )
    row_order: Label | None = Field(None, description="a name that the service understands")


class ExperimentPart(Part):
    """``[[experiments]]``."""

    name: str = Field(description="unique in the file")
    layer: str = Field(description="one of `[layers]`")
    start: Start | None = Field(
        None,
        description="from when outcomes count; without it none are kept; another one begins anew",
    )
    cells: tuple[CellPart, ...] = Field(min_length=1, description="below")


class FilePart(Part):
    """The whole file."""

    layers: dict[str, LayerPart] = Field(default_factory=dict)
    variants: dict[str, VariantPart] = Field(default_factory=dict)
    experiments: tuple[ExperimentPart, ...] = ()


PARTS: Final[dict[str, type[Part]]] = {
    "layers": LayerPart,
    "variants": VariantPart,
    "experiments": ExperimentPart,
    "cells": CellPart,
}


def load_catalog(path: Path) -> Catalog:
    """Read and check a file.

    Raises:
        ConfigError: It cannot be read, a name is unknown, or a value does not fit; one line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: {error}") from error
    try:
        return parse_catalog(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_catalog(text: str) -> Catalog:
    """Read the content of a file; as `load_catalog`."""
    try:
        found = FilePart(**tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error
    salts = {name: layer.salt for name, layer in found.layers.items()}
    return Catalog.of(
        [Layer(name, layer.salt, layer.parameters) for name, layer in found.layers.items()],
        [Variant(name, each.learner, each.model) for name, each in found.variants.items()],
        [_experiment(each, salts) for each in found.experiments],
    )


def _experiment(part: ExperimentPart, salts: dict[str, str]) -> Experiment:
    # A layer that is not there is the catalog's to refuse; it knows the others.
    cells = tuple(map(_cell, part.cells))
    start_ms = None if part.start is None else int(part.start.timestamp()) * 1000
    return Experiment(part.name, part.layer, salts.get(part.layer, ""), cells, start_ms)


def _cell(part: CellPart) -> Cell:
    slots = tuple(SlotRange(*map(int, each.split("-"))) for each in part.slots)
    parameters = Parameters(part.variant, part.blend_half_life_s, part.row_order)
    return Cell(part.name, part.share, slots, parameters)


def _explain(error: ValidationError) -> str:
    """One line that names the first wrong place, and what would be right."""
    errors = error.errors(include_url=False)
    # A name that is spelled wrong is also missing; what stands there says more.
    first = min(errors, key=lambda each: each["type"] != "extra_forbidden")
    place = first["loc"]
    where = ".".join(f"{part + 1}" if isinstance(part, int) else part for part in place)
    if first["type"] == "extra_forbidden":
        tables = [part for part in place[:-1] if part in PARTS]
        known: Any = PARTS[str(tables[-1])] if tables else FilePart
        return f"{where} is not known here; known: {', '.join(known.model_fields)}"
    message = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
    if first["type"] == "missing":
        return f"{where} is missing"
    return f"{where} is {str(first['input'])[:80]!r}: {message}"
