"""From payload models to the JSON Schemas that the database judges an INSERT by (`sql/083_payloads.sql`).

Made from pydantic's core schema and not from its JSON Schema: that one repeats what people write into it for readers,
and this one must never refuse what the model takes. So it says what is surely needed and leaves out what only Python
can judge: whatever a validator of ours sees before pydantic does, and every kind of node that is not named here.
"""

import math
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any, Final, TypeAlias, cast

from pydantic import BaseModel

from listener.registry import Handler

Node: TypeAlias = Mapping[str, Any]
"""A part of a core schema; its words are pydantic's, and of any type."""
Schema: TypeAlias = dict[str, object]

_BOUNDS: Final = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
_MOST: Final = 2_000_000_000
# What Rust's regular expressions and PostgreSQL's read alike: plain letters, plain sets, plain repetition.
ALIKE: Final = re.compile(
    r"\^?(?:(?:[\w@%&=:;,<>/~ -]|\[\^?(?:[A-Za-z0-9]-[A-Za-z0-9]|[\w@%:/ ])+\])"
    r"(?:[*+?]|\{\d{1,2}(?:,\d{0,2})?\})?)*\$?",
    re.ASCII,
)
_UNSURE: Final[Node] = {"coerce_numbers_to_str": True}


def schemas_of(handlers: Iterable[Handler]) -> list[dict[str, object]]:
    """What `publish_schemas` takes: a schema for each type, in a steady order."""
    return [
        {"queue": one.queue, "type": one.type, "schema": payload_schema(one.payload)}
        for one in sorted(handlers, key=lambda one: (one.queue, one.type))
    ]


def payload_schema(model: type[BaseModel]) -> Schema:
    """What surely keeps data from fitting the model, as JSON Schema."""
    walk = _Walk()
    schema = {"title": model.__name__} | walk.of(model.__pydantic_core_schema__, {})
    return schema | {"$defs": walk.definitions} if walk.definitions else schema


class _Walk:
    """One walk over a core schema, node by node."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}
        self._names: dict[str, str] = {}

    def of(self, node: Node, config: Node) -> Schema:
        """The schema of a node; `config` is that of the model around it."""
        read = _READERS.get(node["type"])
        return {} if read is None else read(self, node, config)

    def inner(self, node: Node, config: Node) -> Schema:
        """Of one that looks at what the node inside of it has let through."""
        return self.of(node["schema"], config)

    def default(self, node: Node, config: Node) -> Schema:
        return self.inner(node, config) if node.get("on_error", "raise") == "raise" else {}

    def nullable(self, node: Node, config: Node) -> Schema:
        schema = self.inner(node, config)
        kind = schema.get("type")
        if isinstance(kind, str):
            enum = {"enum": [*cast("list[object]", schema["enum"]), None]} if "enum" in schema else {}
            return {**schema, "type": [kind, "null"], **enum}
        if not schema or kind is not None:
            return schema
        choices = cast("list[object]", schema["anyOf"]) if "anyOf" in schema else [schema]
        return {"anyOf": [*choices, {"type": "null"}]}

    def union(self, node: Node, config: Node) -> Schema:
        given: Iterable[Any] = node["choices"].values() if node["type"] == "tagged-union" else node["choices"]
        nodes: list[Node] = [one[0] if isinstance(one, tuple) else one for one in given]
        choices = [self.of(one, config) for one in nodes]
        return {"anyOf": choices} if all(choices) else {}

    def json_or_python(self, node: Node, config: Node) -> Schema:
        """Data is judged as Python; a sequence of something is a list there too, seen by a validator of pydantic's."""
        python = node["python_schema"]
        steps = python.get("steps", ())
        if steps and steps[0]["type"] == "is-instance" and steps[0]["cls"] is typing.Sequence:
            return self.of(node["json_schema"], config)
        return self.of(python, config)

    def definitions_of(self, node: Node, config: Node) -> Schema:
        for one in node["definitions"]:
            self.definitions[self._name(one["ref"])] = self.of(one, _UNSURE)
        return self.inner(node, config)

    def reference(self, node: Node, _config: Node) -> Schema:
        return {"$ref": f"#/$defs/{self._name(node['schema_ref'])}"}

    def _name(self, ref: str) -> str:
        """The same in every process; what pydantic calls a definition is not."""
        return self._names.setdefault(ref, f"part_{len(self._names) + 1}")

    def model(self, node: Node, _config: Node) -> Schema:
        return {} if node.get("custom_init") else self.inner(node, node.get("config", {}))

    def fields(self, node: Node, config: Node) -> Schema:
        properties: dict[str, Schema] = {}
        spellings: dict[str, str] = {}
        required: list[str] = []
        closed = node.get("extra_behavior", config.get("extra_fields_behavior")) == "forbid"
        for name, field in node["fields"].items():
            alias = field.get("validation_alias", name)
            if not isinstance(alias, str):  # a choice, or a way into the data
                closed = False
                continue
            by_name, by_alias = config.get("validate_by_name"), config.get("validate_by_alias") is not False
            key = name if by_name or not by_alias else alias
            properties[key] = self.inner(field, config)
            if by_name and by_alias and alias != name:
                spellings[name] = alias
            if not _has_default(field):
                required.append(key)
        schema: Schema = {"type": "object", "properties": properties}
        parts = {"required": required, "x-spellings": spellings}
        schema |= {word: part for word, part in parts.items() if part}
        return schema | {"additionalProperties": False} if closed else schema

    def array(self, node: Node, config: Node) -> Schema:
        """Lists, and sets, which may be shorter than what they are made of."""
        schema: Schema = {"type": "array"}
        if items := self.of(node["items_schema"], config) if "items_schema" in node else {}:
            schema["items"] = items
        lengths = _numbers(node, {"min_length": "minItems", "max_length": "maxItems"})
        if node["type"] != "list":
            lengths.pop("maxItems", None)
        return schema | lengths

    def tuple(self, node: Node, config: Node) -> Schema:
        items = [self.of(one, config) for one in node["items_schema"]]
        match node.get("variadic_item_index"):
            case None if any(one["type"] == "default" for one in node["items_schema"]):
                return {"type": "array"}
            case None:
                return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
            case 0 if len(items) == 1 and items[0]:
                return {"type": "array", "items": items[0]}
            case _:
                return {"type": "array"}

    def mapping(self, node: Node, config: Node) -> Schema:
        values = self.of(node["values_schema"], config) if "values_schema" in node else {}
        return {"type": "object", "additionalProperties": values} if values else {"type": "object"}


def _text(_: _Walk, node: Node, config: Node) -> Schema:
    if node.get("coerce_numbers_to_str", config.get("coerce_numbers_to_str")):
        return {}
    schema = {"type": "string"} | _numbers(node, {"min_length": "minLength"})
    if any(
        node.get(word, config.get(f"str_{word}")) for word in ("strip_whitespace", "to_lower", "to_upper")
    ):
        return schema  # what is counted and matched is not what was given
    pattern = node.get("pattern")
    engine = node.get("regex_engine", config.get("regex_engine", "rust-regex"))
    if isinstance(pattern, str) and engine == "rust-regex" and ALIKE.fullmatch(pattern):
        schema["pattern"] = pattern
    return schema | _numbers(node, {"max_length": "maxLength"})


def _choice(_: _Walk, node: Node, _config: Node) -> Schema:
    """Of given texts. What is equal to another kind of value is for Python to say."""
    if node["type"] == "enum":
        values = [one.value for one in node["members"]]
        if node["cls"]._missing_.__func__ is not Enum._missing_.__func__:  # type: ignore[attr-defined]  # a method
            return {}
    else:
        values = list(node["expected"])
    if not all(type(one) is str or (one is not None and isinstance(one, str)) for one in values):
        return {}
    return {"type": "string", "enum": [str.__str__(one) for one in values]}


def _number(kind: str, format_: str | None = None) -> "Reader":
    def read(_: _Walk, node: Node, _config: Node) -> Schema:
        schema: Schema = {"type": kind} if format_ is None else {"type": kind, "format": format_}
        return schema | _numbers(node, _BOUNDS)

    return read


def _plain(kind: str, format_: str | None = None) -> "Reader":
    schema: Schema = {"type": kind} if format_ is None else {"type": kind, "format": format_}
    return lambda _walk, _node, _config: dict(schema)


def _numbers(node: Node, words: Mapping[str, str]) -> Schema:
    """The bounds of a node by their names in JSON Schema, those that JSON can say exactly."""
    said = {ours: _exact(node[word]) for word, ours in words.items() if node.get(word) is not None}
    lengths = {ours for word, ours in words.items() if word.endswith("_length")}
    return {
        word: number
        for word, number in said.items()
        if number is not None and (word not in lengths or number <= _MOST)
    }


def _exact(number: object) -> float | None:
    match number:
        case int():
            return int(number)
        case float() if math.isfinite(number):
            return number
        case Decimal() if number.is_finite() and Decimal(repr(float(number))) == number:
            return float(number)
        case _:
            return None


def _has_default(field: Node) -> bool:
    """Whether a field may be missing, wherever around its kind the default stands."""
    node: Node | None = field
    while node is not None:
        if node["type"] == "default":
            return True
        node = node.get("schema")
    return False


Reader: TypeAlias = Callable[[_Walk, Node, Node], Schema]
_READERS: Final[Mapping[str, Reader]] = {
    "bool": _plain("boolean"),
    "chain": lambda walk, node, config: walk.of(node["steps"][0], config),
    "date": _plain("string", "date"),
    "datetime": _plain("string", "date-time"),
    "decimal": _number("string", "decimal"),
    "default": _Walk.default,
    "definition-ref": _Walk.reference,
    "definitions": _Walk.definitions_of,
    "dict": _Walk.mapping,
    "enum": _choice,
    "float": _number("number"),
    "frozenset": _Walk.array,
    "function-after": _Walk.inner,
    "int": _number("integer"),
    "json-or-python": _Walk.json_or_python,
    "lax-or-strict": lambda walk, node, config: walk.of(node["lax_schema"], config),
    "list": _Walk.array,
    "literal": _choice,
    "model": _Walk.model,
    "model-fields": _Walk.fields,
    "none": _plain("null"),
    "nullable": _Walk.nullable,
    "set": _Walk.array,
    "str": _text,
    "tagged-union": _Walk.union,
    "time": _plain("string", "time"),
    "timedelta": _plain("string", "duration"),
    "tuple": _Walk.tuple,
    "union": _Walk.union,
    "uuid": _plain("string", "uuid"),
}
"""Who reads which kind of node. What is missing here, such as a validator that goes first, is left to the worker."""
