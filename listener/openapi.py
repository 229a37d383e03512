"""The door in the words of OpenAPI, made of the payload models of the handlers: nothing of it is written by hand.

Payloads are shown with their snake_case names; camelCase is understood too.
"""

from collections.abc import Mapping

from pydantic.json_schema import models_json_schema

from listener.registry import Handler, Registry

_REFERENCE = "#/components/schemas/{model}"
_ABOUT: Mapping[str, object] = {
    "user_id": {"type": ["string", "null"], "format": "uuid", "description": "Whose job it is."},
    "priority": {
        "type": "integer",
        "minimum": 0,
        "default": 0,
        "description": "0 is normal, larger is sooner.",
    },
    "run_at": {
        "type": ["string", "null"],
        "format": "date-time",
        "description": "Not before; left out: now.",
    },
    "max_attempts": {"type": ["integer", "null"], "minimum": 1, "description": "Left out: 4."},
    "idempotency_key": {
        "type": ["string", "null"],
        "description": "One job of a queue at most carries the same; the header Idempotency-Key is the caller's own.",
    },
}
_SAYS: Mapping[int, str] = {
    400: "This is no JSON object that describes a job, or its key is said twice.",
    401: "No token, or none of this door's.",
    403: "Without a token only programs on this machine may insert.",
    408: "The request did not arrive in time.",
    413: "The body is too large.",
    415: "The body is of a kind that is not taken.",
    422: "The database refuses the job, and says why; or its Idempotency-Key came with another job before.",
    429: "Too many calls with this token; the header Retry-After says when to come again.",
    503: "The database cannot be reached now; sending it again with the key of the answer inserts it once.",
}


def described(registry: Registry, version: str) -> dict[str, object]:
    """The description of the door, as OpenAPI 3.1 has it."""
    handlers = [registry.handlers[route] for route in sorted(registry.handlers)]
    models = {one.payload: None for one in handlers}
    names, schemas = models_json_schema(
        [(model, "validation") for model in models], by_alias=False, ref_template=_REFERENCE
    )
    payloads: dict[str, object] = dict(schemas.get("$defs", {}))
    jobs = {f"job.{one.queue}.{one.type}": _job(one, names[one.payload, "validation"]) for one in handlers}
    any_job = [{"$ref": _REFERENCE.format(model=name)} for name in [*jobs, "job"]]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "PulseEngine Workers: the door",
            "version": version,
            "description": "Inserts jobs.",
        },
        "paths": {
            "/": {"post": _insert(any_job)},
            "/health": {"get": _look("Whether the process is alive.", {200: "It is."})},
            "/ready": {
                "get": _look("Whether it hears and claims.", {200: "It does.", 503: "It does not, and why."})
            },
        },
        "components": {
            "schemas": {**payloads, **jobs, "job": _other_job(), "inserted": _INSERTED, "refused": _REFUSED},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


_INSERTED: Mapping[str, object] = {
    "type": "object",
    "required": ["id", "created"],
    "properties": {
        "id": {"type": "integer"},
        "created": {"type": "boolean", "description": "False: a job with this key was there already."},
    },
}
_REFUSED: Mapping[str, object] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string", "description": "What is wrong and what to do, in a sentence."},
        "idempotency_key": {
            "type": "string",
            "description": "With it the job is inserted once, whatever happened.",
        },
    },
}


def _job(one: Handler, payload: Mapping[str, object]) -> dict[str, object]:
    needs_data = one.payload.model_json_schema(by_alias=False).get("required")
    return {
        "type": "object",
        "description": (one.run.__doc__ or "").strip() or f"A job of the queue {one.queue}.",
        "required": ["type", "data"] if needs_data else ["type"],
        "additionalProperties": False,
        "properties": {
            "type": {"const": one.type},
            "queue": {"const": one.queue},
            "data": dict(payload),
            **_ABOUT,
        },
    }


def _other_job() -> dict[str, object]:
    return {
        "type": "object",
        "description": "A job of a type that other processes run; it names its queue.",
        "required": ["type", "queue"],
        "additionalProperties": False,
        "properties": {
            "type": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"},
            "queue": {"type": "string"},
            "data": {"type": "object"},
            **_ABOUT,
        },
    }


def _insert(any_job: list[dict[str, str]]) -> dict[str, object]:
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "Sending the same job with the same key again inserts nothing, and answers its id.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
    }
    said = {code: _answer(text, "refused") for code, text in _SAYS.items()}
    return {
        "operationId": "insert",
        "summary": "Inserts one job.",
        "security": [{"token": []}, {}],
        "parameters": [key],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"anyOf": any_job}}}},
        "responses": {
            "200": _answer("It was there already.", "inserted"),
            "201": _answer("It is inserted.", "inserted"),
            **{str(code): answer for code, answer in said.items()},
        },
    }


def _look(summary: str, answers: Mapping[int, str]) -> dict[str, object]:
    return {
        "summary": summary,
        "responses": {
            str(code): {"description": text, "content": {"application/json": {"schema": {"type": "object"}}}}
            for code, text in answers.items()
        },
    }


def _answer(text: str, schema: str) -> dict[str, object]:
    return {
        "description": text,
        "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(model=schema)}}},
    }
