"""From a learner's name in a configuration to the learner.

A built-in has a name; any other is a class that can be imported and made without arguments, named
as ``package.module:Class``. What a learner needs is imported when it is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, cast

from streamer.errors import ConfigError
from streamer.factors.features import learner_id
from streamer.factors.learner import Learner

DEFAULT_LEARNER: Final = "recency_fold_in"
MAX_NAME_LENGTH: Final = 128

_PATH: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A learner that comes with the package.

    Attributes:
        path: ``package.module:Class``.
        description: What it is, in one line.
        n_vectors: Of each user; a single vector stands for both `recent` and `lasting`.
    """

    path: str
    description: str
    n_vectors: int


BUILT_INS: Final[Mapping[str, BuiltIn]] = {
    "recency_fold_in": BuiltIn(
        "streamer.factors.recency_fold_in:RecencyFoldIn",
        "Ridge regression on the history, newer entries weigh more; one vector without recency.",
        n_vectors=2,
    ),
    "flat_fold_in": BuiltIn(
        "streamer.factors.flat_fold_in:FlatFoldIn",
        "Ridge regression on the history without recency: its second vector alone.",
        n_vectors=1,
    ),
    "sgd_replay": BuiltIn(
        "streamer.factors.sgd_replay:SgdReplay",
        "Incremental SGD, one step an entry, oldest first, replayed over the history.",
        n_vectors=1,
    ),
    "mean_of_items": BuiltIn(
        "streamer.factors.mean_of_items:MeanOfItems",
        "Mean of the items of the history, weighted by strength.",
        n_vectors=1,
    ),
}
"""By name, in the order in which they are shown."""


def load_learner(spec: str) -> Learner:
    """Return a new learner.

    Args:
        spec: The name of a built-in, or ``package.module:Class``. Importing the module runs its
            code.

    Raises:
        ConfigError: There is no such learner, it cannot be imported or made, it is not a learner,
            or features could not tell its name from that of a built-in.
    """
    if spec in BUILT_INS:
        return cast("Learner", _class_at(BUILT_INS[spec].path, spec)())
    if not _PATH.fullmatch(spec):
        raise ConfigError(_unknown(spec))
    found = _class_at(spec, spec)
    try:
        learner = found()
    except Exception as error:
        raise ConfigError(
            f"learner {spec!r} cannot be made without arguments: {_cause(error)}"
        ) from error
    _ensure_learner(spec, learner)
    return cast("Learner", learner)


def load_learners(specs: Iterable[str]) -> dict[str, Learner]:
    """Return a learner for each distinct name, by name.

    Raises:
        ConfigError: As `load_learner`, or features could not tell two of them apart.
    """
    learners = {spec: load_learner(spec) for spec in dict.fromkeys(specs)}
    spec_of_id: dict[int, str] = {}
    for spec, learner in learners.items():
        other = spec_of_id.setdefault(learner_id(learner.name), spec)
        if other != spec:
            raise ConfigError(
                f"learners {other!r} and {spec!r} are called {learners[other].name!r} and "
                f"{learner.name!r}, whose CRC-32 in features is the same; give one another name"
            )
    return learners


def _unknown(spec: str) -> str:
    close = difflib.get_close_matches(spec, BUILT_INS, n=1)
    meant = f", did you mean {close[0]!r}?" if close else ";"
    return (
        f"learner {spec!r} is not known{meant} known are {', '.join(BUILT_INS)}, "
        "and one's own as package.module:Class"
    )


def _class_at(path: str, spec: str) -> type[Any]:
    module_name, _, class_name = path.partition(":")
    module = _import(module_name, spec)
    found = getattr(module, class_name, None)
    if found is None:
        names = [name for name, each in vars(module).items() if isinstance(each, type)]
        close = difflib.get_close_matches(class_name, names, n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"learner {spec!r}: module {module_name} has no {class_name}{meant}")
    if not isinstance(found, type):
        raise ConfigError(
            f"learner {spec!r}: {class_name} is of type {type(found).__name__}; expected a class"
        )
    return found


def _import(name: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(_not_imported(spec, name, error)) from error
        raise ConfigError(
            f"learner {spec!r}: there is no module {error.name}; install its package, or put its "
            "folder on PYTHONPATH, wherever workers and readers run"
        ) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(_not_imported(spec, name, error)) from error


def _not_imported(spec: str, name: str, error: BaseException) -> str:
    return f"learner {spec!r}: module {name} cannot be imported: {_cause(error)}"


def _cause(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _ensure_learner(spec: str, learner: object) -> None:
    """Refuse what lacks a name of its own, or cannot be called."""
    if not callable(learner):
        raise ConfigError(
            f"learner {spec!r} cannot be called; "
            "give it __call__(self, histories: HistoryBatch, model: ItemModel) -> UserFactors"
        )
    name = getattr(learner, "name", None)
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise ConfigError(
            f"learner {spec!r}: its attribute `name` is {name!r}; expected a string of 1 to "
            f"{MAX_NAME_LENGTH} printable characters, by which features tell learners apart"
        )
    if name in BUILT_INS:
        raise ConfigError(
            f"learner {spec!r}: its name {name!r} is a built-in's; give it another, "
            f"or configure {name!r} itself"
        )
    for built_in in BUILT_INS:
        if learner_id(name) == learner_id(built_in):
            raise ConfigError(
                f"learner {spec!r}: features could not tell its name {name!r} from {built_in!r}, "
                "both have the same CRC-32; give it another"
            )
