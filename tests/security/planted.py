"""What is planted, in which shapes it is looked for, and a handler that lets it out in every way it can."""

import base64
import html
import json
from collections.abc import Iterator, Mapping
from typing import cast
from urllib.parse import quote, quote_plus

KEYS: Mapping[str, str] = {
    "STRIPE_SECRET_KEY": "sk_" + "test_planted51HxQz0Kk",
    "STRIPE_WEBHOOK_SECRET": "whsec" + "_planted/7Yc+0aB=",
    "PULSE_DOOR_TOKEN": "planted door token: ü/+&0001",
    "DATABASE_URL": "postgresql://planted:planted-db%2Fpass-0002@127.0.0.1:1/postgres",
    "BROKER_API_KEY": "planted+broker/key?0003",
    "SMTP_PASSWORD": 'planted "mail" password 0004',
    "SIGNING_KEY": "-----BEGIN NOTHING-----\nplanted0005/lineone+aaa\nplanted0005/linetwo+bbb\n-----END NOTHING-----",
}
"""Variables of every process. Only some are declared by what it loads."""

WHO: Mapping[str, object] = {
    "name": 'Zoë O\'Planted & "Söhne"',
    "card": "4929 planted 5678",
    "mail": "zoe@planted.example",
    "home": 'Planted Street 17\n99999 "Plantville"',
    "note": "plantednote " * 40,
    "token": "planted/opaque+tok==",
    "path": "C:\\planted\\file",
    "amount": 918273645,
    "list": [{"deep": "planted-deep-0006"}],
    "DE89 planted 3704": "planted-under-a-key",
}
"""Data of every job."""


def values_of(words: object) -> Iterator[str]:
    """Every text in it that must not come out, keys that are no names among them."""
    if isinstance(words, dict):
        for name, inner in cast("dict[str, object]", words).items():
            yield from [name] if "planted" in name else []
            yield from values_of(inner)
    elif isinstance(words, list):
        for inner in cast("list[object]", words):
            yield from values_of(inner)
    else:
        yield str(words)


def shapes_of(value: str) -> set[str]:
    """In which it may stand in a text and still be read by anybody."""
    lines = [value, *value.splitlines()] if "\n" in value else [value]
    return {
        shape
        for line in lines
        for shape in (
            line.strip(),
            repr(line)[1:-1],
            repr(line.encode())[2:-1],
            json.dumps(line)[1:-1],
            json.dumps(line, ensure_ascii=False)[1:-1],
            json.dumps(json.dumps(line))[3:-3],
            html.escape(line),
            quote(line),
            quote(line, safe=""),
            quote_plus(line),
        )
    }


def shapes_of_key(value: str) -> set[str]:
    """The same, and Base64, wherever it begins in what was encoded."""
    shapes = shapes_of(value)
    for before in range(3):
        text = base64.b64encode(bytes(before) + value.encode()).decode()
        shapes |= {text[4:-4], text[4:-4].replace("+", "-").replace("/", "_")}
    return shapes


HANDLER = r'''
"""A handler that lets out what it knows, in every way it can."""

import asyncio
import base64
import gc
import html
import json
import logging
import os
import threading
import warnings
from datetime import timedelta
from urllib.parse import quote, quote_plus

from loguru import logger
from pydantic import BaseModel, ConfigDict

from handlers.clients.database import Database
from listener import Cancel, Job, Payload, Queue, Reject, RetryAfter, Snooze, handler


class Leak(Payload):
    model_config = ConfigDict(extra="allow", hide_input_in_errors=False)

    how: str


class Strict(BaseModel):
    name: int
    card: bool


class Thrown:
    def __init__(self, text: str) -> None:
        self.text = text

    def __del__(self) -> None:
        raise ValueError(self.text)


class Unprintable:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


KEPT = []
LIBRARIES = (
    "aiohttp.server", "aiohttp.client", "asyncio", "httpx", "httpcore.http11", "hpack", "realtime._async.client",
    "websockets.client", "supabase", "postgrest", "stripe", "urllib3.connectionpool", "of_nobody",
)


def texts(data: dict[str, object]) -> list[str]:
    """Everything that it knows, one by one."""
    found = [os.environ[name] for name in ENVIRONMENT]
    todo = [data]
    while todo:
        match todo.pop():
            case dict() as words:
                todo += words.values()
                found += [name for name in words if "planted" in name]
            case list() as words:
                todo += words
            case "message" | None:
                pass
            case text:
                found.append(str(text))
    return found


def raises(text: str) -> None:
    inside = text  # a local variable
    raise RuntimeError(f"cannot go on with {inside}")


async def fails(text: str) -> None:
    raises(text)


def speaks(text: str) -> None:
    """Through loguru, and through the logging of all libraries, at all levels."""
    logger.info("saw " + text)
    logger.bind(seen=text, more=[text]).warning("bound")
    logger.error("\ud800" + text)
    try:
        raises(text)
    except RuntimeError:
        logger.exception("it broke")
        logger.opt(exception=True, depth=1).critical("it broke again: {}", text)
        for name in LIBRARIES:
            library = logging.getLogger(name)
            library.setLevel(logging.DEBUG)
            library.debug("sent %s", text)
            library.info("sent " + text)
            library.warning("sent %r", text)
            library.error("sent %s", {"key": text})
            library.exception("sent to %s", quote(text))
            library.warning("%d", text)
            library.log(35, text, stack_info=True)
    warnings.warn(text, RuntimeWarning, stacklevel=1)


def written(text: str) -> str:
    """In the shapes in which libraries quote."""
    return " ".join([
        text, repr(text), repr(text.encode()), json.dumps(text), json.dumps(json.dumps(text)), html.escape(text),
        json.dumps({"a": text}, ensure_ascii=False), f"https://planted.example/?q={quote_plus(text)}&r={quote(text)}",
    ])


def encoded(text: str) -> str:
    """As headers and cookies carry a key."""
    return " ".join(base64.b64encode(before + text.encode()).decode() for before in (b"", b"u:", b"user:"))


@handler(Queue.MAINTENANCE)
async def leak(payload: Leak, *, job: Job, db: Database) -> object:
    how, known = payload.how, texts(dict(job.data))
    all_of_it = " | ".join(known)
    match how:
        case "message":
            raises(all_of_it)
        case "arguments":
            raise KeyError(*known)
        case "shapes":
            raise ValueError("\n".join(written(text) for text in known))
        case "encoded":
            raise ValueError("\n".join(encoded(os.environ[name]) for name in ENVIRONMENT))
        case "torn":
            raise ValueError("x" * 19_980 + known[0] + known[-1])
        case "torn_after_much":
            raise ValueError(str(payload.note) * 41 + "y" * 280 + all_of_it)
        case "chain":
            try:
                try:
                    raise KeyError(all_of_it)
                except KeyError as first:
                    raise ValueError(written(known[-1])) from first
            except ValueError:
                raise OSError(5, all_of_it, all_of_it)
        case "notes":
            error = ValueError("noted")
            error.add_note(all_of_it)
            raise error
        case "group":
            inner = ExceptionGroup(all_of_it, [ValueError(text) for text in known])
            raise ExceptionGroup("outer", [inner, *(KeyError(text) for text in known[-5:])])
        case "tasks":
            async with asyncio.TaskGroup() as group:
                for text in known:
                    group.create_task(fails(text), name=text)
        case "pydantic":
            Strict.model_validate({"name": known[-1], "card": all_of_it})
        case "nested_pydantic":
            Strict.model_validate_json(json.dumps({"name": all_of_it, known[-2]: 1}))
        case "url":
            key = os.environ["BROKER_API_KEY"]
            address = f"https://user:{quote(key, safe='')}@planted.example/?key={key}"
            raise OSError(f"{address}&who={quote_plus(payload.name)}")
        case "reject":
            raise Reject(all_of_it)
        case "later":
            raise RetryAfter(timedelta(hours=1), all_of_it)
        case "class":
            raise type(payload.card.replace(" ", "_"), (Exception,), {})(payload.card)
        case "exit":
            raise SystemExit(all_of_it)
        case "cancelled":
            raise asyncio.CancelledError(all_of_it)
        case "snooze":
            return Snooze(timedelta(hours=1), written(known[-1]) + all_of_it)
        case "cancel":
            return Cancel(written(known[-1]) + all_of_it)
        case "text":
            return all_of_it
        case "object":
            return {"x": Unprintable(all_of_it)}
        case "huge":
            return {"x": all_of_it * 1000}
        case "speak":
            for text in known:
                speaks(text)
            await asyncio.to_thread(speaks, all_of_it)
        case "forgotten":
            threads = [threading.Thread(target=raises, args=(text,), name=text) for text in known]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            KEPT.append(asyncio.create_task(fails(all_of_it), name=all_of_it))
            await asyncio.wait(KEPT)
            KEPT.clear()
            Thrown(all_of_it)
            for text in known:
                asyncio.get_running_loop().call_soon(raises, text)
            gc.collect()
        case "database":
            logging.getLogger("httpx").setLevel(logging.DEBUG)
            await db.table("jobs").select("nothing").eq("type", all_of_it).execute()
    return None
'''

WAYS = (
    "message", "arguments", "shapes", "encoded", "torn", "torn_after_much", "chain", "notes", "group", "tasks",
    "pydantic", "nested_pydantic", "url", "reject", "later", "class", "exit", "cancelled", "snooze", "cancel", "text",
    "object", "huge", "speak", "forgotten", "database", "nothing",
)  # fmt: skip
