"""JSON files that one stage writes and another reads."""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from fer_ray.errors import DataError

M = TypeVar("M", bound=BaseModel)


def read_json(model: type[M], file: Path, remedy: str) -> M:
    """Read a file that holds a model with a ``format_version``.

    Raises:
        DataError: it is no JSON, is of another version, or holds other fields or values, of which three are named.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not readable: {error}. {remedy}") from error
    expected = model.model_fields["format_version"].default
    version = content.get("format_version", expected) if isinstance(content, dict) else expected
    if version != expected:
        raise DataError(f"{file}: format version {version}, expected {expected}. {remedy}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}".removeprefix(": ") for item in error.errors()]
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise DataError(f"{file}: not as this program writes it: {'; '.join(wrong[:3])}{more}. {remedy}") from error
