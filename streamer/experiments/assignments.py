"""What a user gets: cells, and from them variant, blend and row order, without asking anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.experiments.allocation import (
    N_SLOTS,
    UNALLOCATED,
    Parameters,
    slot_of,
    slot_table,
    slots_of,
)
from streamer.experiments.catalog import DEFAULT_VARIANT, PARAMETERS, Catalog


@dataclass(frozen=True, slots=True)
class Assignment:
    """One user's part in everything that is being tried.

    Attributes:
        cells: Experiment to cell, of the experiments that the user is in.
        parameters: What these cells set; `variant` is never None.
    """

    cells: Mapping[str, str]
    parameters: Parameters


class Assignments:
    """Resolves users by a catalog: one hash a layer. Immutable; make another for another file.

    Attributes:
        variants: Those that cells set, by name.
    """

    def __init__(self, catalog: Catalog, variant: str = DEFAULT_VARIANT) -> None:
        """Build each layer's table of slots, some 80 kB a layer.

        Args:
            catalog: Checked.
            variant: Of whoever is in no cell that sets one.
        """
        self._default = variant
        set_by_cells = {
            cell.parameters.variant
            for experiment in catalog.experiments
            for cell in experiment.cells
            if cell.parameters.variant is not None
        }
        self.variants = tuple(catalog.variants[name] for name in sorted(set_by_cells))
        self._layers: list[_LayerTable] = []
        for layer in catalog.layers.values():
            choices: list[_Choice] = []
            table = np.full(N_SLOTS, UNALLOCATED, np.int64)
            for experiment in catalog.experiments:
                if experiment.layer != layer.name:
                    continue
                cells = slot_table(experiment)
                is_used = cells != UNALLOCATED
                table[is_used] = cells[is_used] + len(choices)
                choices += [
                    _Choice(experiment.name, c.name, c.parameters) for c in experiment.cells
                ]
            if choices:
                self._layers.append(_LayerTable(layer.salt, table, tuple(choices)))

    def of(self, user_id: str) -> Assignment:
        """Return one user's cells and parameters."""
        chosen = [
            layer.choices[index]
            for layer in self._layers
            if (index := int(layer.table[slot_of(user_id, layer.salt)])) != UNALLOCATED
        ]
        return self._assignment(chosen)

    def of_many(self, user_ids: Sequence[str]) -> list[Assignment]:
        """Return each user's cells and parameters, in their order."""
        columns = [layer.table[slots_of(user_ids, layer.salt)].tolist() for layer in self._layers]
        known: dict[tuple[int, ...], Assignment] = {}
        answers: list[Assignment] = []
        for indexes in zip(*columns, strict=True) if columns else [()] * len(user_ids):
            if indexes not in known:
                chosen = [
                    layer.choices[index]
                    for layer, index in zip(self._layers, indexes, strict=True)
                    if index != UNALLOCATED
                ]
                known[indexes] = self._assignment(chosen)
            answers.append(known[indexes])
        return answers

    def _assignment(self, chosen: Sequence[_Choice]) -> Assignment:
        values: dict[str, object] = {"variant": self._default}
        for choice in chosen:
            for name in PARAMETERS:
                if (value := getattr(choice.parameters, name)) is not None:
                    values[name] = value
        cells = {choice.experiment: choice.cell for choice in chosen}
        return Assignment(cells, Parameters(**values))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class _Choice:
    experiment: str
    cell: str
    parameters: Parameters


@dataclass(frozen=True, slots=True, eq=False)
class _LayerTable:
    """Of one layer: the index of the choice that each slot means, or UNALLOCATED."""

    salt: str
    table: NDArray[np.int64]
    choices: tuple[_Choice, ...]
