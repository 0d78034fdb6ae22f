"""A bounded folder that is filled once, however many ask."""

import multiprocessing as mp
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from deepmac.data.stream.cache import Cache
from deepmac.errors import ConfigError

KB = 1000


def test_bound__holds_at_any_time_and_the_oldest_go_first(tmp_path):
    cache = Cache(tmp_path, 10 * KB)
    for number in range(30):

        def fetch(number=number):
            assert cache.used() <= 10 * KB
            return bytes([number]) * 3 * KB

        path = cache.get(f"set/{number}", 3 * KB, fetch)
        assert path.read_bytes() == bytes([number]) * 3 * KB
        os.utime(path, (number, number))
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == ["27", "28", "29"]


def test_a_file_that_is_there__is_not_fetched_again(tmp_path):
    cache = Cache(tmp_path, 10 * KB)
    cache.get("a", 4, lambda: b"once")
    assert cache.get("a", 4, lambda: pytest.fail("again")).read_bytes() == b"once"


def test_many_threads_and_processes__fetch_once(tmp_path):
    cache, count = Cache(tmp_path / "cache", 100 * KB), tmp_path / "count"

    def fetch():
        with count.open("a") as file:
            file.write("x")
        time.sleep(0.2)
        return b"content"

    def job():
        with ThreadPoolExecutor(3) as pool:
            paths = list(pool.map(lambda _: cache.get("one", 7, fetch), range(3)))
        assert all(path.read_bytes() == b"content" for path in paths)

    processes = [mp.get_context("fork").Process(target=job) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert count.read_text() == "x"


def test_a_failed_fetch__leaves_nothing(tmp_path):
    cache = Cache(tmp_path, 10 * KB)
    with pytest.raises(OSError, match="gone"):
        cache.get("a", 5, lambda: (_ for _ in ()).throw(OSError("gone")))
    assert cache.used() == 0
    assert cache.get("a", 5, lambda: b"there").read_bytes() == b"there"


def test_a_killed_fetch__makes_room_again(tmp_path):
    cache = Cache(tmp_path, 10 * KB)
    process = mp.get_context("fork").Process(
        target=lambda: cache.get("a", 9 * KB, lambda: time.sleep(60))
    )
    process.start()
    while cache.used() < 9 * KB:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    cache.get("b", 9 * KB, lambda: b"b" * 9 * KB)
    assert cache.used() == 9 * KB


def test_a_chunk_beyond_the_bound__is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"does not fit into the cache of .* raise data.cache_gb"):
        Cache(tmp_path, 10).get("a", 11, lambda: b"")
