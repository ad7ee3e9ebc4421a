"""Where an import stands, in a file of its own: stopped at any moment, it goes on from there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from streamer.errors import StreamerError


class ResumeFile:
    """Remembers how many rows are done; nothing where no path was given."""

    def __init__(self, path: Path | None, source: Mapping[str, Any]) -> None:
        """Keep the parts.

        Args:
            path: The file, or None.
            source: What identifies the work, as JSON: another one's progress means nothing here.
        """
        self._path = path
        self._source = dict(source)

    def next_row(self) -> int:
        """Return where to go on, 0 at the beginning.

        Raises:
            StreamerError: The file is of other work, or is none of ours.
        """
        if self._path is None or not self._path.exists():
            return 0
        try:
            found = orjson.loads(self._path.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise StreamerError(f"{self._path}: cannot be read as progress of an import") from error
        row = found.get("next_row") if isinstance(found, dict) else None
        if type(row) is not int or row < 0:
            raise StreamerError(f"{self._path}: is no progress of an import")
        if found.get("source") != self._source:
            raise StreamerError(
                f"{self._path}: is the progress of another import, or the file has changed since; "
                "delete it to begin from the first row"
            )
        return row

    def done(self, next_row: int) -> None:
        """Everything before this row is written.

        Raises:
            StreamerError: The file cannot be written.
        """
        if self._path is None:
            return
        new = self._path.with_name(f".{self._path.name}.tmp")
        try:
            new.write_bytes(orjson.dumps({"source": self._source, "next_row": next_row}))
            new.replace(self._path)
        except OSError as error:
            raise StreamerError(f"{self._path}: cannot be written: {error.strerror}") from error

    def finish(self) -> None:
        """All is written: there is nothing to go on with."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def identity_of(path: Path) -> list[Any]:
    """Return what tells a file, or a folder of files, from another one, as JSON."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [
        [each.name, status.st_size, status.st_mtime_ns] for each in files if (status := each.stat())
    ]
