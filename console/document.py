"""JSON for programs: two blanks a level, letters as they are, and numbers with all their digits."""

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import cast


def document(value: object, indent: str = "") -> str:
    """The value as a text. Keys keep their order."""
    inner = indent + "  "
    match value:
        case Mapping() if value:
            pairs = cast("Mapping[str, object]", value).items()
            parts = [f"{_text(str(key))}: {document(one, inner)}" for key, one in pairs]
            return f"{{\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}}}"
        case list() | tuple() if value:
            parts = [document(one, inner) for one in cast("list[object]", value)]
            return f"[\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}]"
        case Decimal():
            return str(value)
        case datetime():
            return _text(value.isoformat())
        case _:
            return _text(value)


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
