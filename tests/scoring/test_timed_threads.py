"""Threads that work through batches."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fer_ray.scoring.timed_threads import TimedBatches


@pytest.mark.parametrize("threads", [1, 2])
def test_what_takes_too_long_is_given_up_and_the_rest_goes_on(threads: int) -> None:
    released = threading.Event()

    def work(number: int) -> str:
        if number in (1, 2, 7):
            released.wait(30)
        return "done"

    timed = TimedBatches(work, lambda number: f"{number} late", list, threads, 0.3)
    results = timed.map([range(4), range(4, 8), range(8, 9)])
    assert results == [["done", "1 late", "2 late", "done"], ["done", "done", "done", "7 late"], ["done"]]
    released.set()
    time.sleep(0.1)
    assert results[0][1] == "1 late"  # what comes of it later is left out
    assert timed.map([[3, 4]]) == [["done", "done"]]


def test_a_late_one_does_not_end_what_another_call_does() -> None:
    timed = TimedBatches(lambda seconds: time.sleep(seconds) or "done", lambda seconds: "late", list, 2, 0.2)
    with ThreadPoolExecutor(2) as pool:
        slow, quick = pool.submit(timed.map, [[0.5, 0.0]]), pool.submit(timed.map, [[0.0] * 5])
    assert (slow.result(), quick.result()) == ([["late", "done"]], [["done"] * 5])


def test_finishing_a_batch_has_all_the_time_it_needs_and_may_raise() -> None:
    def finish(batch: list[int]) -> int:
        time.sleep(0.3)
        return 1 // batch[0]

    timed = TimedBatches(lambda number: number, lambda number: -1, finish, 2, 0.1)
    with pytest.raises(ZeroDivisionError):
        timed.map([[1], [0], [1]])
    assert timed.map([[1, 2]]) == [1]
