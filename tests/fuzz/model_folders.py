"""An item model's folder as one string of bytes: the files one after the other, under headings.

``== NAME ==`` on a line of its own begins a file, ``== NAME -> LINK ==`` is a symbolic link to
one of `LINKS`. What stands before the first heading is the manifest, so any bytes are a folder.
"""

import re
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from streamer.errors import ModelError
from streamer.factors import RecencyFoldIn
from streamer.history import HistoryBatch, Interactions, merge, pack_word
from streamer.models import check_model, content_id, load_model
from streamer.models.folder import FILES

HEADING = re.compile(rb"(?:\A|\n)== ([a-z_.]{1,20})(?: -> ([a-z ]{1,20}))? ==\n")
LINKS = {
    b"itself": None,
    b"nowhere": "/nowhere/at/all",
    b"zeros": "/dev/zero",
    b"memory": "/proc/self/mem",
    b"a folder": "/",
    b"too long": "x" * 300,
    b"a sibling": "item_factors.npy",
}
MOST_SECONDS = 5.0
"""Of loading a folder of some kilobytes, on a busy machine; it takes milliseconds."""


def folder_of(files):
    """Return the bytes that stand for a folder with these files."""
    return b"".join(b"\n== %s ==\n%s" % (name.encode(), body) for name, body in files.items())


def write_folder(data, folder):
    """Make the folder that the bytes stand for."""
    manifest, *parts = HEADING.split(data)
    for name, link, body in [
        (b"manifest.json", None, manifest),
        *zip(*[iter(parts)] * 3, strict=True),
    ]:
        path = folder / name.decode()
        if path.name not in FILES or (name == b"manifest.json" and not body and not link):
            continue
        path.unlink(missing_ok=True)
        if link in LINKS:
            path.symlink_to(LINKS[link] or path.name)
        else:
            path.write_bytes(body)


def load_folder(data):
    """Load the folder: a model that can be used, or a `ModelError` of one short line."""
    folder = Path(tempfile.mkdtemp(prefix="streamer-fuzz-", dir=MEMORY))
    try:
        write_folder(data, folder)
        started = time.monotonic()
        try:
            model = load_model(folder)
        except ModelError as error:
            said = str(error).removeprefix(f"{folder}: ")
            assert len(said) < 400, "a message of any length"
            assert said.isprintable(), "a message with line breaks or escapes"
            model = None
        assert time.monotonic() - started < MOST_SECONDS
        if model is not None:
            use(model)
            assert check_model(folder).manifest.model_id == f"{model.model_id:016x}"
    finally:
        shutil.rmtree(folder)


MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  a folder of our own in it


def use(model):
    """What was not refused can be folded in with: a finite vector, or a row that is rejected."""
    assert np.isfinite(model.whitening).all()
    assert len(content_id(model)) == 16
    words = [
        pack_word(1_763_900_000_000 + age, 200, kind) for age, kind in ((0, 1), (1, 6), (2, 3))
    ]
    arrived = Interactions(
        np.array([0, 0, 0]),
        np.resize(model.item_keys, 3),
        np.array(words, np.uint64),
        np.zeros(1, np.uint64),
    )
    histories, _ = merge(HistoryBatch.empty(1), arrived)
    factors = RecencyFoldIn()(histories, model)
    assert factors.vectors.shape == (1, 2, model.n_factors)
    assert factors.is_rejected[0] or np.isfinite(factors.vectors).all()
