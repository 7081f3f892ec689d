"""Arrow arrays of Python's values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa


def arrow_array(values: Sequence[Any], type: pa.DataType) -> pa.Array:
    """Return what ``pyarrow.array`` does, without importing pandas, which takes a second in a short job.

    ``values`` are None for null, else of the ``type``: string, binary, float32, int32, int64, or a list of int64.
    """
    valid = pa.py_buffer(np.packbits(np.array([value is not None for value in values], bool), bitorder="little"))
    if pa.types.is_list(type):
        sizes = [len(value or ()) for value in values]
        flat = arrow_array([number for value in values for number in value or ()], type.value_type)
        return pa.Array.from_buffers(type, len(values), [valid, _offsets(sizes)], children=[flat])
    if pa.types.is_string(type) or pa.types.is_binary(type):
        encoded = [value.encode() if isinstance(value, str) else value or b"" for value in values]
        return pa.Array.from_buffers(
            type, len(values), [valid, _offsets(list(map(len, encoded))), pa.py_buffer(b"".join(encoded))]
        )
    numbers = np.array([0 if value is None else value for value in values], type.to_pandas_dtype())
    return pa.Array.from_buffers(type, len(values), [valid, pa.py_buffer(numbers)])


def _offsets(sizes: Sequence[int]) -> pa.Buffer:
    return pa.py_buffer(np.cumsum([0, *sizes], dtype=np.int32))
