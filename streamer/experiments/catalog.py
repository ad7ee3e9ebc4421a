"""What is being tried: layers, variants and experiments, as values that fit together.

Pure: `Catalog.of` checks what no single field can be wrong about, and says what would be right.
docs/reference/experiments.md has the rules.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Final, Self

from streamer.errors import ConfigError
from streamer.experiments.allocation import N_SLOTS, Cell, Experiment, Parameters
from streamer.factors import DEFAULT_LEARNER

DEFAULT_VARIANT: Final = "default"
DEFAULT_MODEL: Final = "default"
PARAMETERS: Final = tuple(field.name for field in fields(Parameters))

_NAME: Final = re.compile(r"[a-z0-9_-]{1,32}")
_SALT: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Layer:
    """A division of all users, independent of every other layer's.

    Attributes:
        name: Unique.
        salt: Unique; a new one deals all users anew.
        parameters: What its cells may set, and no other layer's.
    """

    name: str
    salt: str
    parameters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variant:
    """A learner and a model; no two variants have the same pair.

    Attributes:
        name: As in the keys of features.
        learner: The name of a built-in, or ``package.module:Class``.
        model: A name for what is published to the variant.
    """

    name: str
    learner: str = DEFAULT_LEARNER
    model: str = DEFAULT_MODEL


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything that is being tried. Make one with `of`.

    Attributes:
        layers: By name.
        variants: By name; ``default`` is always there.
        experiments: In the order of the file.
    """

    layers: Mapping[str, Layer]
    variants: Mapping[str, Variant]
    experiments: tuple[Experiment, ...]

    @classmethod
    def of(
        cls,
        layers: Sequence[Layer],
        variants: Sequence[Variant],
        experiments: Sequence[Experiment],
    ) -> Self:
        """Check that everything fits together.

        Raises:
            ConfigError: It does not; one line that names the place and what would be right.
        """
        by_name = {variant.name: variant for variant in variants}
        by_name.setdefault(DEFAULT_VARIANT, Variant(DEFAULT_VARIANT))
        catalog = cls(
            {layer.name: layer for layer in layers}, dict(sorted(by_name.items())), (*experiments,)
        )
        _ensure_layers(layers)
        _ensure_variants(catalog.variants.values())
        _ensure_unique("experiment", [experiment.name for experiment in experiments])
        for experiment in experiments:
            _ensure_experiment(experiment, catalog)
        for layer in layers:
            _ensure_room(layer.name, [each for each in experiments if each.layer == layer.name])
        return catalog

    def learners(self, variant: str, learner: str) -> dict[str, str]:
        """Return the learner of every variant that a worker keeps fresh, by the variant's name.

        Args:
            variant: The deployment's own; it comes first.
            learner: Its learner, whatever the catalog says.
        """
        in_cells = {cell.parameters.variant for each in self.experiments for cell in each.cells}
        others = {
            name: each.learner
            for name, each in self.variants.items()
            if name != DEFAULT_VARIANT or name in in_cells
        }
        return {variant: learner} | {name: others[name] for name in others if name != variant}

    def experiment(self, name: str) -> Experiment:
        """Return the experiment of this name.

        Raises:
            ConfigError: There is none.
        """
        for experiment in self.experiments:
            if experiment.name == name:
                return experiment
        known = ", ".join(each.name for each in self.experiments) or "none"
        raise ConfigError(f"experiment {name!r} is not in the catalog; known: {known}")


def _ensure_layers(layers: Sequence[Layer]) -> None:
    salts: dict[str, str] = {}
    setters: dict[str, str] = {}
    for layer in layers:
        where = f"layer {layer.name!r}"
        _ensure_name(where, layer.name)
        if not _SALT.fullmatch(layer.salt):
            raise ConfigError(
                f"{where}: salt {layer.salt!r}; expected 1 to 64 of A-Z, a-z, 0-9, ., _ and -"
            )
        if layer.salt in salts:
            raise ConfigError(
                f"{where} has the salt of layer {salts[layer.salt]!r}, {layer.salt!r}: both would "
                "divide the users alike; give each layer its own"
            )
        salts[layer.salt] = layer.name
        for parameter in layer.parameters:
            if parameter not in PARAMETERS:
                raise ConfigError(
                    f"{where}: {parameter!r} is not a parameter; known: {', '.join(PARAMETERS)}"
                )
            if parameter in setters:
                raise ConfigError(
                    f"{where}: {parameter} is set by layer {setters[parameter]!r} already; a user "
                    "is in both, so only one may set it"
                )
            setters[parameter] = layer.name


def _ensure_variants(variants: Iterable[Variant]) -> None:
    names: dict[tuple[str, str], str] = {}
    for variant in variants:
        _ensure_name(f"variant {variant.name!r}", variant.name)
        pair = (variant.learner, variant.model)
        if pair in names:
            raise ConfigError(
                f"variants {names[pair]!r} and {variant.name!r} are both learner {pair[0]!r} with "
                f"model {pair[1]!r}; let their cells share one of the names"
            )
        names[pair] = variant.name


def _ensure_experiment(experiment: Experiment, catalog: Catalog) -> None:
    where = f"experiment {experiment.name!r}"
    _ensure_name(where, experiment.name)
    layer = catalog.layers.get(experiment.layer)
    if layer is None:
        known = ", ".join(catalog.layers) or "none"
        raise ConfigError(f"{where}: layer {experiment.layer!r} is not there; known: {known}")
    if experiment.salt != layer.salt:
        raise ConfigError(f"{where}: salt {experiment.salt!r}; its layer's is {layer.salt!r}")
    if not experiment.cells:
        raise ConfigError(f"{where} has no cell; give it two or more")
    _ensure_unique(f"{where}: cell", [cell.name for cell in experiment.cells])
    for cell in experiment.cells:
        _ensure_cell(f"{where}, cell {cell.name!r}", cell, layer, catalog.variants)


def _ensure_cell(where: str, cell: Cell, layer: Layer, variants: Mapping[str, Variant]) -> None:
    _ensure_name(where, cell.name)
    for part in cell.slots:
        if not 0 <= part.first <= part.last < N_SLOTS:
            raise ConfigError(f"{where}: slots {part}; expected FIRST-LAST within 0-{N_SLOTS - 1}")
    n_owned = sum(map(len, cell.slots))
    if not 0 <= cell.share <= n_owned:
        raise ConfigError(
            f"{where}: share {cell.share}, but it owns {n_owned:,} slots; "
            "lower the share, or add free slots at the end of its list"
        )
    for parameter in PARAMETERS:
        if getattr(cell.parameters, parameter) is not None and parameter not in layer.parameters:
            raise ConfigError(
                f"{where} sets {parameter}, which is not among the parameters of layer "
                f"{layer.name!r}: {', '.join(layer.parameters) or 'none'}"
            )
    variant = cell.parameters.variant
    if variant is not None and variant not in variants:
        raise ConfigError(
            f"{where}: variant {variant!r} is not there; known: {', '.join(variants)}"
        )


def _ensure_room(layer: str, experiments: Sequence[Experiment]) -> None:
    """Refuse slots with two owners; sorted, only neighbors can overlap."""
    share = sum(cell.share for each in experiments for cell in each.cells)
    if share > N_SLOTS:
        raise ConfigError(f"layer {layer!r}: its shares add up to {share:,}, of {N_SLOTS:,}")
    owned = sorted(
        (part, f"{each.name}/{cell.name}")
        for each in experiments
        for cell in each.cells
        for part in cell.slots
    )
    for (part, owner), (next_part, next_owner) in pairwise(owned):
        if next_part.first <= part.last:
            raise ConfigError(
                f"layer {layer!r}: slots {part} of {owner} and {next_part} of {next_owner} "
                "overlap; a slot has one owner"
            )


def _ensure_name(where: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: expected a name of 1 to 32 of a-z, 0-9, _ and -")


def _ensure_unique(what: str, names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ConfigError(f"{what} {name!r} is there {count} times; names are unique")
