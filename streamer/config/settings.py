"""The configuration of a process: defaults < TOML file < environment, unknown names refused.

``STREAMER__KAFKA__GROUP_ID`` is ``[kafka] group_id``. ``STREAMER__REDIS__PASSWORD_FILE`` names a
file whose content is the value, for any setting, so that secrets need not be in the environment.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from streamer.config.sections import (
    ExperimentsSection,
    FeaturesSection,
    KafkaSection,
    LogSection,
    MetricsSection,
    ModelsSection,
    RedisSection,
    WorkerSection,
)
from streamer.errors import ConfigError

PREFIX = "STREAMER__"
FILE_SUFFIX = "_FILE"
MAX_SECRET_FILE_BYTES = 65_536
_HARMLESS = re.compile(
    r"(?!sasl|ssl).*|sasl\.(mechanisms?|username)|ssl\..*\.location|ssl\.endpoint.*"
)
_SECRET_WORDS = ("password", "passphrase", "secret", "token", "key.pem", "private", "jaas")
_QUERY_PASSWORD = re.compile(r"([?&]password=)[^&]*")
_URL_CREDENTIALS = re.compile(r"(://).*(@)")


class Settings(BaseSettings):
    """Every setting of every verb; see docs/reference/config.md."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    kafka: KafkaSection = KafkaSection()
    redis: RedisSection = RedisSection()
    worker: WorkerSection = WorkerSection()
    models: ModelsSection = ModelsSection()
    experiments: ExperimentsSection = ExperimentsSection()
    features: FeaturesSection = FeaturesSection()
    metrics: MetricsSection = MetricsSection()
    log: LogSection = LogSection()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what `load_settings` merged: it knows our spelling of the environment."""
        return (init_settings,)


def load_settings(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the file and the environment and check them before anything is opened.

    Args:
        path: A TOML file, or None for defaults and environment alone.
        environ: The environment; None takes the process's own.

    Raises:
        ConfigError: A name is unknown or a value does not fit; one line, naming the setting.
    """
    file_values = _read_file(path) if path else {}
    env_values = _read_environment(os.environ if environ is None else environ)
    try:
        return Settings(**_merge(file_values, env_values))
    except ValidationError as error:
        raise ConfigError(_explain(error, path, env_values)) from error


def explain_settings(
    settings: Settings, path: Path | None = None, environ: Mapping[str, str] | None = None
) -> Iterator[tuple[str, str, str]]:
    """Yield (name, value, source) of every setting; secrets are masked.

    The source is ``default``, ``file`` or ``environment``.
    """
    file_values = _read_file(path) if path else {}
    env_values = _read_environment(os.environ if environ is None else environ)
    for section_name in type(settings).model_fields:
        section: BaseModel = getattr(settings, section_name)
        for name in type(section).model_fields:
            if name in env_values.get(section_name, {}):
                source = "environment"
            elif name in file_values.get(section_name, {}):
                source = "file"
            else:
                source = "default"
            yield f"{section_name}.{name}", _printable(getattr(section, name)), source


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _read_environment(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return {section: {name: value}}; ``[kafka.client]`` nests one level deeper."""
    values: dict[str, dict[str, Any]] = {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX):
            continue
        section, _, name = variable.removeprefix(PREFIX).partition("__")
        value = environ[variable]
        if name.endswith(FILE_SUFFIX):
            name = name.removesuffix(FILE_SUFFIX)
            value = _read_secret_file(variable, Path(value))
        name, _, nested = name.lower().partition("__")
        target = values.setdefault(section.lower(), {})
        if nested:
            target, name = target.setdefault(name, {}), nested
        if not isinstance(target, dict) or isinstance(target.get(name), dict):
            raise ConfigError(f"{variable} and another variable set the same in two ways")
        target[name] = value
    return values


def _read_secret_file(variable: str, path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MAX_SECRET_FILE_BYTES).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{variable} names a file that cannot be read: {path}") from error


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        merged[name] = _merge(under, value) if both else value  # type: ignore[arg-type]
    return merged


def _explain(
    error: ValidationError, path: Path | None, env_values: Mapping[str, Mapping[str, Any]]
) -> str:
    """One line that names the first wrong setting, where it came from, and what would be right."""
    first = error.errors(include_url=False, include_input=False)[0]
    parts = [str(part) for part in first["loc"]]
    section, name = parts[0], parts[1] if len(parts) > 1 else ""
    in_environment = section in env_values and (not name or name in env_values[section])
    where = (
        PREFIX + "__".join(parts[:2]).upper() if in_environment else f"[{section}] {name}".strip()
    )
    origin = "" if in_environment or path is None else f"{path}: "
    if first["type"] == "extra_forbidden":
        known: list[str] = list(Settings.model_fields)
        field = Settings.model_fields.get(section)
        if name and field is not None and field.annotation is not None:
            known = list(field.annotation.model_fields)
        return f"{origin}{where} is not a setting; known: {', '.join(sorted(known))}"
    return f"{origin}{where}: {first['msg'][:1].lower()}{first['msg'][1:]}"


def _printable(value: object) -> str:
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, dict):
        return str({name: _mask(name, part) for name, part in value.items()})
    return _QUERY_PASSWORD.sub(r"\1********", _URL_CREDENTIALS.sub(r"\1********\2", str(value)))


def _mask(name: str, value: object) -> object:
    secret = not _HARMLESS.fullmatch(name) or any(word in name for word in _SECRET_WORDS)
    return "********" if secret else value
