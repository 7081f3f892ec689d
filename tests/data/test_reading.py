"""Work on many items that no single one can hold up."""

import threading
import time

import pytest

from fer_ray.data.archives import Entry
from fer_ray.data.disk import FileError
from fer_ray.data.reading import Crew, read_entry


@pytest.mark.parametrize("threads", [1, 3, 50])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_results_are_in_order(threads: int, count: int) -> None:
    crew = Crew(lambda number: number * number, lambda number: -1, threads, 60)
    assert crew.map(range(count)) == [number * number for number in range(count)]


@pytest.mark.parametrize("threads", [1, 2])
def test_what_takes_too_long_is_given_up_and_the_rest_goes_on(threads: int) -> None:
    released = threading.Event()

    def work(number: int) -> str:
        if number in (1, 2, 7):
            released.wait(30)
        return "done"

    began = time.monotonic()
    results = Crew(work, lambda number: f"{number} late", threads, 0.3).map(range(9))
    assert time.monotonic() - began < 5
    assert results == ["done", "1 late", "2 late", "done", "done", "done", "done", "7 late", "done"]
    released.set()
    time.sleep(0.1)
    assert results[1] == "1 late"  # what comes of it later is left out


def test_a_late_one_does_not_end_what_another_call_does() -> None:
    crew = Crew(lambda seconds: time.sleep(seconds) or "done", lambda seconds: "late", 2, 0.2)
    assert crew.map([0.5, 0.0]) == ["late", "done"]
    assert crew.map([0.0] * 5) == ["done"] * 5


def test_an_entry_that_listing_found_wrong_is_not_read() -> None:
    with pytest.raises(FileError) as caught:
        read_entry(Entry(b"/a.zip!/b", b"/a.zip", (), "too_large: unpacks to: much"))
    assert (caught.value.kind, caught.value.message) == ("too_large", "unpacks to: much")
