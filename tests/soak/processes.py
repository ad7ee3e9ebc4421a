"""What Linux says of a process, and the delays that a worker traces."""

import os
from pathlib import Path

import numpy as np
from soak.judgement import Sample

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def look_at(pid, seconds):
    """Return a sample of a living process."""
    home = Path("/proc") / str(pid)
    n_pages = int((home / "statm").read_text().split()[1])
    n_files = len(list((home / "fd").iterdir()))
    n_threads = len(list((home / "task").iterdir()))
    return Sample(seconds, n_pages * PAGE_BYTES, n_files, n_threads)


def peak_rss_bytes(pid):
    """Return the largest resident size that a living process had; 0 if it is gone."""
    try:
        status = (Path("/proc") / str(pid) / "status").read_text()
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


class DelayTrace:
    """Reads a growing file of float64 seconds."""

    def __init__(self, path):
        self._path = path
        self._n_read = 0

    def new_delays(self):
        """Return what was appended since the last call."""
        if not self._path.exists():
            return np.empty(0)
        with self._path.open("rb") as trace:
            trace.seek(self._n_read)
            data = trace.read()
        data = data[: len(data) - len(data) % 8]
        self._n_read += len(data)
        return np.frombuffer(data, "<f8")
