"""Bytes of entries."""

import pytest

from fer_ray.data.archives import Entry
from fer_ray.data.disk import FileError
from fer_ray.data.reading import read_entry


def test_an_entry_that_listing_found_wrong_is_not_read() -> None:
    with pytest.raises(FileError) as caught:
        read_entry(Entry(b"/a.zip!/b", b"/a.zip", (), "too_large: unpacks to: much"))
    assert (caught.value.kind, caught.value.message) == ("too_large", "unpacks to: much")
