"""A local EVM chain (anvil, of the Foundry project) and the people on it, spoken to in plain JSON-RPC.

No library for Ethereum is used here, so that what is sent is not made by what the product reads it with.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

import aiohttp

_MONEY: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "money.json").read_text())["contracts"]
COIN: Final = 10**18
"""The coin's smallest units in one."""


class RpcError(Exception):
    """The chain refused what was asked."""


def find_anvil() -> Path | None:
    """The program, where the counterparts of this project or Foundry's own installer put it; None if nobody did."""
    installed = Path(__file__).resolve().parents[2] / ".ci" / "node_modules" / "@foundry-rs"
    candidates = [os.environ.get("PULSE_ANVIL"), *installed.glob("anvil-*/bin/anvil"), shutil.which("anvil")]
    return next((Path(found) for found in candidates if found and Path(found).exists()), None)


def new_address() -> str:
    """An address that nobody had before."""
    return "0x" + secrets.token_hex(20)


class Anvil:
    """A running chain, which mines nothing by itself."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.chain_id = 0
        self._session = session
        self.accounts: list[str] = []
        """Ten rich addresses whose transactions the chain signs by itself."""

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Anvil]:
        """Speaks to a process that runs."""
        async with aiohttp.ClientSession() as session:
            chain = cls(url, session)
            chain.chain_id = int(await chain.rpc("eth_chainId"), 16)
            chain.accounts = await chain.rpc("eth_accounts")
            yield chain

    @property
    def name(self) -> str:
        """As CRYPTO_ENDPOINTS calls it."""
        return f"evm:{self.chain_id}"

    async def rpc(self, method: str, *params: object) -> Any:
        """One question and its answer."""
        question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        async with self._session.post(self.url, json=question) as answer:
            said = await answer.json()
        if "error" in said:
            raise RpcError(f"{method}: {said['error']['message']}")
        return said["result"]

    async def mine(self, blocks: int = 1) -> None:
        """So many blocks, with whatever waits in the first."""
        await self.rpc("anvil_mine", hex(blocks))

    async def pay(
        self,
        sender: str,
        to: str | None,
        value: int = 0,
        data: str = "0x",
        *,
        gas: int | None = None,
        mined: bool = True,
    ) -> str:
        """Sends a transaction; its hash. `gas` sends it even if it will fail; unless `mined`, it waits for a block."""
        tx = {"from": sender, "value": hex(value), "data": data}
        if to is not None:
            tx["to"] = to
        if gas is not None:
            tx["gas"] = hex(gas)
        sent: str = await self.rpc("eth_sendTransaction", tx)
        if mined:
            await self.mine()
        return sent

    async def token(self, symbol: str = "USDT", decimals: int = 6) -> Token:
        """A new token, of which everybody in `accounts` is given a million."""
        word = symbol.encode().hex().ljust(64, "0")
        made = await self._deploy("Token", _words(64, decimals, len(symbol)) + word)
        token = Token(self, made, decimals)
        for account in self.accounts:
            given = _call("Token", "mint(address,uint256)", account, 10**6 * 10**decimals)
            await self.pay(self.accounts[0], made, data=given, mined=False)
        await self.mine()
        return token

    async def router(self) -> str:
        """A contract that pays for others; its address."""
        return await self._deploy("Router")

    async def _deploy(self, contract: str, arguments: str = "") -> str:
        sent = await self.pay(self.accounts[0], None, data=_MONEY[contract]["bytecode"] + arguments)
        receipt = await self.rpc("eth_getTransactionReceipt", sent)
        made: str = receipt["contractAddress"]
        return made.lower()

    async def forward(self, router: str, sender: str, to: str, value: int) -> str:
        """Coins through the router: an inner call, which leaves no log."""
        return await self.pay(sender, router, value, _call("Router", "forward(address)", to))


class Token:
    """A token on the chain."""

    def __init__(self, chain: Anvil, address: str, decimals: int) -> None:
        self.chain = chain
        self.address = address
        self.decimals = decimals

    def units(self, amount: float) -> int:
        """In the smallest units."""
        return int(Decimal(str(amount)).scaleb(self.decimals))

    async def pay(
        self, sender: str, to: str, amount: float, *, gas: int | None = None, mined: bool = True
    ) -> str:
        """A transfer; the hash of its transaction."""
        data = _call("Token", "transfer(address,uint256)", to, self.units(amount))
        return await self.chain.pay(sender, self.address, data=data, gas=gas, mined=mined)

    async def pay_by_router(self, router: str, sender: str, to: str, amount: float, times: int = 1) -> str:
        """The same through a contract, in as many transfers of `amount` as asked; the hash of its transaction."""
        allow = _call("Token", "approve(address,uint256)", router, self.units(amount) * times)
        await self.chain.pay(sender, self.address, data=allow)
        pay = _call(
            "Router", "pay(address,address,uint256,uint256)", self.address, to, self.units(amount), times
        )
        return await self.chain.pay(sender, router, data=pay)


@contextmanager
def anvil_process(program: Path, *, chain_id: int = 31337) -> Iterator[str]:
    """A chain of its own, for as long as the block lasts: its URL. Starts in less than a tenth of a second."""
    with TemporaryFile() as log:  # nobody reads on, and a pipe would fill up
        words = [str(program), "--port", "0", "--chain-id", str(chain_id), "--no-mining"]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.DEVNULL)
        try:
            yield f"http://127.0.0.1:{_port(process, log)}"
        finally:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[bytes], log: IO[bytes]) -> int:
    while process.poll() is None:
        log.seek(0)
        _, _, said = log.read().partition(b"Listening on 127.0.0.1:")
        if said.endswith(b"\n"):
            return int(said)
        time.sleep(0.005)
    raise RuntimeError("anvil ended before it listened")


def _call(contract: str, function: str, *arguments: str | int) -> str:
    selector: str = _MONEY[contract]["selectors"][function]
    return "0x" + selector + _words(*arguments)


def _words(*arguments: str | int) -> str:
    """Addresses and numbers as a contract reads them: 32 bytes each."""
    numbers = [int(one, 16) if isinstance(one, str) else one for one in arguments]
    return "".join(f"{number:064x}" for number in numbers)
