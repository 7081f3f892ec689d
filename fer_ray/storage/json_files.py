"""Read JSON files that another stage wrote."""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fer_ray.errors import DataError
from fer_ray.storage.inputs import local_copy

M = TypeVar("M", bound=BaseModel)


class StoredModel(BaseModel):
    """Base class of what JSON files hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_json(model: type[M], file: Path | str, remedy: str, name: str = "") -> M:
    """Read a JSON file, by path or URL, into a pydantic model that has a ``format_version``.

    Raises:
        DataError: the file can't be read, has another format version, or has wrong fields or values (three are named).
            The message begins with ``name``, by default the file, and ends with ``remedy``.
    """
    try:
        content = json.loads(local_copy(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{name or file}: can't be read: {error}. {remedy}") from error
    expected = model.model_fields["format_version"].default
    version = content.get("format_version", expected) if isinstance(content, dict) else expected
    if version != expected:
        raise DataError(f"{name or file}: format version {version}, expected {expected}. {remedy}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}".removeprefix(": ") for item in error.errors()]
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise DataError(f"{name or file}: invalid: {'; '.join(problems[:3])}{more}. {remedy}") from error
