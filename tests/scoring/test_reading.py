"""Bytes of entries."""

import pytest

from fer_ray.images.image_files import FileError
from fer_ray.scoring.containers import Entry, read_entry


def test_an_entry_that_listing_found_wrong_is_not_read() -> None:
    with pytest.raises(FileError) as caught:
        read_entry(Entry(b"/a.zip!/b", b"/a.zip", (), "too_large: unpacks to: much"))
    assert (caught.value.kind, caught.value.message) == ("too_large", "unpacks to: much")
