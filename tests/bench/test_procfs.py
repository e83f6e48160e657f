from __future__ import annotations

import mmap
import os
import socket
import threading
import time

import pytest

from xiaozhi_trio.bench.procfs import NoSuchProcess, cost_of, listener_of


def test_a_process_has_costs() -> None:
    before = cost_of(os.getpid())
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    # Beside what else a process of many tests gives back meanwhile, it must count.
    kept = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for place in range(0, len(kept), mmap.PAGESIZE):
        kept[place] = 1
    done = threading.Event()
    threads = [threading.Thread(target=done.wait) for _ in range(16)]
    for thread in threads:
        thread.start()
    after = cost_of(os.getpid())
    done.set()
    for thread in threads:
        thread.join()
    assert after.cpu_seconds - before.cpu_seconds >= 0.03
    assert after.private_bytes - before.private_bytes > len(kept) // 2
    kept.close()
    # Idle threads of other tests may end meanwhile.
    assert after.threads - before.threads >= len(threads) // 2
    assert after.waited_seconds >= before.waited_seconds


def test_a_process_that_is_not_there_is_told() -> None:
    with pytest.raises(NoSuchProcess, match="process 999999999"):
        cost_of(999999999)


@pytest.mark.sockets
def test_who_listens_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert listener_of(port) == os.getpid()
    assert listener_of(port) is None
