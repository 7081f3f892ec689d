"""Columns of Parquet files as others write them: found by name, case aside, and what they hold."""

import pyarrow as pa

IMAGE = ("image", "img", "img_bytes")
"""Names of a column of image files' bytes, or of structs with them in ``bytes``, as the library `datasets` writes."""


def find_column(schema: pa.Schema, names: tuple[str, ...]) -> str | None:
    """Return the first of the names that a column has."""
    by_name = {name.lower(): name for name in schema.names}
    return next((by_name[name] for name in names if name in by_name), None)


def holds_bytes(type: pa.DataType) -> bool:
    """Say whether it holds bytes, or structs with such a field ``bytes``."""
    if pa.types.is_struct(type):
        return type.get_field_index("bytes") >= 0 and holds_bytes(type.field("bytes").type)
    return bool(pa.types.is_binary(type) or pa.types.is_large_binary(type))


def is_text(type: pa.DataType) -> bool:
    """Say whether it holds text, as such or by a dictionary."""
    of_values = type.value_type if pa.types.is_dictionary(type) else type
    return bool(pa.types.is_string(of_values) or pa.types.is_large_string(of_values))
