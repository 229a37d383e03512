"""A double of an Esplora API, written from its documentation: the paths that we use, in the shapes that it documents.

It holds a chain of blocks and a mempool, and checks what it is asked: a path that it does not know is noted in
`strange`, and so is a question that comes in a spelling which the real one would not understand.
"""

import re
import secrets
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer

Json = dict[str, Any]
GENESIS = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
FINAL, REPLACEABLE = 0xFFFFFFFF, 0xFFFFFFFD
HASH = re.compile("[0-9a-f]{64}")


def an_address() -> str:
    """In the form of a native witness address of the main network."""
    return "bc1q" + "".join(secrets.choice("023456789acdefghjklmnpqrstuvwxyz") for _ in range(38))


@dataclass
class Block:
    """A block on the best branch or beside it."""

    height: int
    hash: str
    time: int
    best: bool = True


@dataclass
class Esplora:
    """The chain, and the server before it."""

    genesis: str = GENESIS
    txs: dict[str, Json] = field(default_factory=dict[str, Json])
    blocks: list[Block] = field(default_factory=list[Block])
    strange: list[str] = field(default_factory=list[str])
    down: bool = False

    def __post_init__(self) -> None:
        self.blocks = [
            Block(0, self.genesis, 1231006505),
            Block(800_000, secrets.token_hex(32), int(time.time()) - 600),
        ]
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._server = TestServer(app)

    async def __aenter__(self) -> Self:
        await self._server.start_server(access_log=None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        return str(self._server.make_url("/api"))

    # -- what happens on the chain

    def pay(self, *outputs: tuple[str | None, int], sequence: int = FINAL) -> str:
        """A transaction in the mempool; its id. An output without an address is of a kind that has none."""
        txid = secrets.token_hex(32)
        vin = {
            "txid": secrets.token_hex(32),
            "vout": 0,
            "prevout": {"scriptpubkey_address": an_address(), "value": 10**9},
            "scriptsig": "",
            "is_coinbase": False,
            "sequence": sequence,
        }
        self.txs[txid] = {
            "txid": txid,
            "version": 2,
            "locktime": 0,
            "vin": [vin],
            "vout": [_output(address, value) for address, value in outputs],
            "size": 222,
            "weight": 561,
            "fee": 141,
            "status": {"confirmed": False},
        }
        return txid

    def mine(self, *txids: str, blocks: int = 1, at: int | None = None) -> Block:
        """A block with these transactions, and more on top; the first of them."""
        tip = self.tip
        made = [
            Block(tip.height + n, secrets.token_hex(32), at or int(time.time())) for n in range(1, blocks + 1)
        ]
        self.blocks += made
        for txid in txids:
            self.txs[txid]["status"] = {
                "confirmed": True,
                "block_height": made[0].height,
                "block_hash": made[0].hash,
                "block_time": made[0].time,
            }
        return made[0]

    def give_up(self, block: Block) -> None:
        """Another branch wins from this block on; the server has not yet looked at the transactions again."""
        for one in self.blocks:
            one.best = one.best and one.height < block.height

    def drop(self, txid: str) -> None:
        """Nobody knows the transaction any more: it was replaced, or fell out of the mempool."""
        del self.txs[txid]

    @property
    def tip(self) -> Block:
        return max((one for one in self.blocks if one.best), key=lambda one: one.height)

    # -- what it answers

    async def _answer(self, request: web.Request) -> web.Response:
        if self.down:
            return web.Response(status=503, text="Service Unavailable")
        match request.path.removeprefix("/api/").split("/"):
            case ["block-height", height] if height.isdigit():
                found = [one.hash for one in self.blocks if one.best and one.height == int(height)]
                return web.Response(text=found[0]) if found else _missing("Block not found")
            case ["blocks", "tip", "height"]:
                return web.Response(text=str(self.tip.height))
            case ["tx", txid] if HASH.fullmatch(txid):
                return (
                    web.json_response(self.txs[txid])
                    if txid in self.txs
                    else _missing("Transaction not found")
                )
            case ["block", hash_, "status"] if HASH.fullmatch(hash_):
                return self._block_status(hash_)
            case _:
                self.strange.append(request.path)
                return web.Response(status=400, text="Invalid hex string")

    def _block_status(self, hash_: str) -> web.Response:
        for one in self.blocks:
            if one.hash == hash_:
                if not one.best:
                    return web.json_response({"in_best_chain": False})
                return web.json_response({"in_best_chain": True, "height": one.height, "next_best": None})
        return _missing("Block not found")


def _output(address: str | None, value: int) -> Json:
    if address is None:
        return {"scriptpubkey": "6a0461626364", "scriptpubkey_type": "op_return", "value": value}
    return {
        "scriptpubkey": "0014" + secrets.token_hex(20),
        "scriptpubkey_type": "v0_p2wpkh",
        "scriptpubkey_address": address,
        "value": value,
    }


def _missing(text: str) -> web.Response:
    return web.Response(status=404, text=text)
