"""Publishing: a checked model becomes the live one of a variant; and the way back.

In this order, so that whoever follows the pointer finds the model: check, copy into the shared
directory, register the variant, raise the generation. A failure at any step leaves the live model
live, and publishing again finishes the work.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import redis
from redis.exceptions import MovedError, RedisClusterException

from streamer.errors import ConfigError, ModelError, StoreUnavailable
from streamer.models.content_id import content_id
from streamer.models.folder import FILES, check_model, load_model
from streamer.models.folder_writer import staged
from streamer.models.pointer import (
    VARIANTS_KEY,
    Pointer,
    encode_pointer,
    next_pointer,
    pointer_key,
    stored_pointer,
)

MAX_ATTEMPTS: Final = 100
"""Of one publish, each of them lost to another publish of the same variant."""

_COMPARE_AND_SET: Final = """
if (redis.call('GET', KEYS[1]) or '') == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2])
  return 1
end
return 0
"""


class RedisCommands(Protocol):
    """A client of redis-py, of a standalone Redis or of a cluster."""

    @property
    def execute_command(self) -> Callable[..., Any]:
        """Run one command."""
        ...


def publish(redis_client: RedisCommands, directory: Path, folder: Path, variant: str) -> Pointer:
    """Make a model the live one of a variant; workers and readers switch within a second.

    May be called twice: a model that is already live keeps its generation.

    Args:
        redis_client: With ``decode_responses=False``.
        directory: Shared by publishers, workers and readers; the model is copied to
            ``directory/MODEL_ID``.
        folder: The model.
        variant: Its name, ``[a-z0-9_-]{1,32}``.

    Returns:
        The pointer that is live now.

    Raises:
        ModelError: The model must be refused, or another one carries its id; the live one stays.
        StoreUnavailable: Redis did not answer; whether the model is live is unknown.
    """
    pointer_key(variant)  # refuses a name that no variant can have
    model_id = _install(directory, folder)
    with _store_errors():
        # First the set: a variant with features that forgetting does not know would keep them.
        redis_client.execute_command("SADD", VARIANTS_KEY, variant)
        return _point(redis_client, variant, model_id)


def roll_back(redis_client: RedisCommands, directory: Path, variant: str) -> Pointer:
    """Make the model before the live one live again; workers and readers switch within a second.

    The generation rises, so that nobody takes the way back for an old message; a roll-back of a
    roll-back goes forward again. To be called once: twice is back and forth.

    Args:
        redis_client: With ``decode_responses=False``.
        directory: Where published models are.
        variant: Its name, ``[a-z0-9_-]{1,32}``.

    Returns:
        The pointer that is live now.

    Raises:
        ModelError: There is no model before, its folder is gone or broken, or somebody else
            changed the pointer meanwhile; the live one stays.
        StoreUnavailable: Redis did not answer; whether it was rolled back is unknown.
    """
    key = pointer_key(variant)
    with _store_errors():
        value = redis_client.execute_command("GET", key)
        live = stored_pointer(variant, value)
        if live is None:
            raise ModelError(f"variant {variant} has no live model yet; publish one")
        if live.previous is None:
            raise ModelError(
                f"variant {variant}: no model was live before {live.model_id}; "
                "there is nothing to roll back to"
            )
        _ensure_installed(directory, live.previous)
        pointer = next_pointer(live, live.previous)
        # Once only: after somebody else's roll-back, ours would go forward again.
        change = (key, value, encode_pointer(pointer))
        if not redis_client.execute_command("EVAL", _COMPARE_AND_SET, 1, *change):
            raise ModelError(
                f"variant {variant}: somebody else published or rolled back at the same time; "
                f"see what is live with `streamer model show --variant {variant}`"
            )
    return pointer


def read_pointer(redis_client: RedisCommands, variant: str) -> Pointer | None:
    """Return which model is live, or None before the first publish.

    Raises:
        ModelError: The value is not a pointer; names the key.
        StoreUnavailable: Redis did not answer.
    """
    with _store_errors():
        key = pointer_key(variant)
        return stored_pointer(variant, redis_client.execute_command("GET", key))


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except MovedError as error:
        raise ConfigError(
            "[redis] url: this is a node of a Redis Cluster; write redis+cluster:// for redis://"
        ) from error
    except (redis.RedisError, RedisClusterException, OSError) as error:
        raise StoreUnavailable(f"Redis: {str(error)[:200]}") from error


def _point(redis_client: RedisCommands, variant: str, model_id: str) -> Pointer:
    """Raise the generation by compare-and-set, so that no publish undoes or repeats another's."""
    key = pointer_key(variant)
    for _ in range(MAX_ATTEMPTS):
        value = redis_client.execute_command("GET", key)
        live = stored_pointer(variant, value)
        pointer = next_pointer(live, model_id)
        if pointer == live:
            return pointer
        change = (key, value or b"", encode_pointer(pointer))
        if redis_client.execute_command("EVAL", _COMPARE_AND_SET, 1, *change):
            return pointer
    raise StoreUnavailable(f"{key}: {MAX_ATTEMPTS} other publishes came first; publish again")


def _ensure_installed(directory: Path, model_id: str) -> None:
    """Refuse a model that workers could not load."""
    folder = directory / model_id
    if not folder.is_dir():
        raise ModelError(
            f"{folder}: the model before is not in the directory any more; "
            "publish it from where it was trained"
        )
    found = check_model(folder).manifest.model_id
    if found != model_id:
        raise ModelError(f"{folder}: its manifest says model_id {found}; publish it again")


def _install(directory: Path, folder: Path) -> str:
    """Copy the model to ``directory/MODEL_ID`` unless it is there; return its id."""
    checked = check_model(folder)
    model_id = checked.manifest.model_id
    installed = directory / model_id
    if not installed.exists():
        try:
            with staged(installed) as staging:
                for name in FILES:
                    shutil.copyfile(folder / name, staging / name)
        except ModelError:
            # Another publish of the same model may have been faster; then it is there now.
            if not installed.exists():
                raise
    if content_id(load_model(installed)) != content_id(checked.model):
        raise ModelError(
            f"{installed}: another model with the id {model_id} is there; its writer must give "
            "different models different ids"
        )
    return model_id
