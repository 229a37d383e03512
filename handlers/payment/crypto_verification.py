"""Whether a crypto payment is there: looks at the chain, judges by one table, and has the database do what follows.

A job names a request and a transaction. Anyone can name any hash, so nothing that the job says is believed: what
counts was bound before anyone paid (`sql/220_crypto.sql`), and is read from the chain. In the order of the table:

    the chain shows                                         the transaction is
    ------------------------------------------------------  -------------------------------------------
    nothing by this hash                                    not_found
    the transaction, in no block of the best branch         pending
    it failed                                               rejected: failed_on_chain
    no transfer of our token to the request's address       rejected: no_transfer_to_us
      … and it asked for coins, and ran a contract          rejected: paid_within_a_contract (a person looks)
    the payer has to sign the request, and nobody did       rejected: not_signed
    no such transfer from the one who signed                rejected: wrong_sender
    its block is older than the request                     rejected: older_than_request
    its block came after the request's time                 rejected: too_late (a person looks)
    fewer confirmations than asked, or not final yet        confirming
    all of that is well                                     confirmed

The first two and `confirming` are no failures: the job comes back, 15 seconds to 10 minutes later, and no attempt
counts. An endpoint that does not answer is one, and is retried. A job without a hash ends a request whose time is over.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal, NamedTuple
from uuid import UUID

from pydantic import BaseModel, Field

from handlers.clients.chains.chain import Sighting, Transfer, Wanted
from handlers.clients.chains.client import Chains, Disagreement
from handlers.clients.chains.evm import signer_of
from handlers.clients.database import Database, call
from listener import Job, Payload, Queue, Reject, Snooze, handler

FIRST_DELAY = timedelta(seconds=15)
LONGEST_DELAY = timedelta(minutes=10)
LONGEST_DELAY_IN_A_BLOCK = timedelta(minutes=2)

NOTHING_TO_LOOK_FOR = {
    "unknown_request": "There is no such request: it is opened before anyone pays (open_crypto_request).",
    "bad_hash": "This is no hash of a transaction on the request's chain.",
    "too_many": "Too many hashes were named for this request. Its payer needs a person.",
}


class CryptoVerification(Payload):
    """The request and the transaction that is said to pay it; or the user and tier of the request that is open."""

    crypto_payment_id: UUID | None = None
    tx_hash: str | None = Field(default=None, max_length=100)
    payer_signature: str | None = Field(default=None, max_length=200)
    user_id: UUID | None = None
    tier_id: UUID | None = None
    amount: object = None
    """Accepted and ignored: what was paid, the chain says."""


class Request(BaseModel):
    """What was bound before anyone paid, and whether this transaction counts for it already."""

    id: UUID
    chain: str
    token_contract: str | None
    decimals: int
    pay_to_address: str
    sign_message: str | None
    payer_signature: str | None
    required_confirmations: int
    needs_finality: bool
    two_providers: bool
    opened_at: datetime
    expires_at: datetime
    counted: bool


class Look(BaseModel):
    """One look that has begun."""

    look: int
    tx_hash: str
    request: Request


class Verdict(NamedTuple):
    """What the table says of a transaction."""

    word: Literal["not_found", "pending", "rejected", "confirming", "confirmed"]
    reason: str | None = None
    transfers: tuple[Transfer, ...] = ()


def patience(failed: int) -> timedelta:
    """Soon at first, and then long enough for a provider to come back."""
    return timedelta(seconds=(15, 120, 600)[min(failed, 3) - 1])


@handler(Queue.PAYMENT, backoff=patience)
async def crypto_verification(
    payload: CryptoVerification, *, job: Job, chains: Chains, db: Database
) -> dict[str, object] | Snooze:
    """Looks once. The result says how the request stands, and what became of the transaction and why."""
    if payload.crypto_payment_id is None and None in (payload.user_id, payload.tier_id, payload.tx_hash):
        raise Reject("Name crypto_payment_id, or all of user_id, tier_id and tx_hash.")
    if payload.tx_hash is None:
        return dict(await call(db, "expire_crypto_request", crypto_payment_id=payload.crypto_payment_id))
    begun = await call(
        db,
        "submit_crypto_hash",
        named=payload.model_dump(include={"crypto_payment_id", "user_id", "tier_id"})
        | {"asked_by": job.user_id},
        tx_hash=payload.tx_hash,
        payer_signature=payload.payer_signature,
    )
    if begun["outcome"] != "look":
        raise Reject(NOTHING_TO_LOOK_FOR[str(begun["outcome"])])
    look = Look.model_validate(begun)
    ended = await call(
        db,
        "record_crypto_look",
        crypto_payment_id=look.request.id,
        tx_hash=look.tx_hash,
        look=look.look,
        seen=await _seen(look, chains),
    )
    if ended["again"]:
        return Snooze(_delay(look.look, ended["transaction"]), f"The transaction is {ended['transaction']}.")
    return dict(ended)


def judge(request: Request, seen: Sighting, clock_error: timedelta) -> Verdict:
    """The table."""
    if seen.state == "not_found" or seen.state == "pending":
        return Verdict(seen.state)
    if seen.state == "failed" or seen.block is None:
        return Verdict("rejected", "failed_on_chain")
    if not seen.transfers:
        coins_moved_inside = request.token_contract is None and seen.carries_call
        return Verdict("rejected", "paid_within_a_contract" if coins_moved_inside else "no_transfer_to_us")
    transfers = seen.transfers
    if request.sign_message is not None:
        if request.payer_signature is None:
            return Verdict("rejected", "not_signed")
        payer = signer_of(request.sign_message, request.payer_signature)
        transfers = tuple(transfer for transfer in transfers if transfer.sender == payer)
    if not transfers:
        return Verdict("rejected", "wrong_sender")
    if not request.counted:  # what counted in time stays in time, whichever block it is in now
        if seen.block.mined_at < request.opened_at - clock_error:
            return Verdict("rejected", "older_than_request")
        if seen.block.mined_at > request.expires_at + clock_error:
            return Verdict("rejected", "too_late")
    deep = seen.confirmations >= request.required_confirmations
    stays = deep and (seen.block.final or not request.needs_finality)
    return Verdict("confirmed" if stays else "confirming", transfers=transfers)


async def _seen(look: Look, chains: Chains) -> Mapping[str, object]:
    """What `record_crypto_look` takes."""
    request = look.request
    wanted = Wanted(
        look.tx_hash,
        request.pay_to_address,
        request.token_contract,
        request.decimals,
        request.needs_finality,
    )
    try:
        sighting = await chains.look(request.chain, wanted, two_providers=request.two_providers)
    except Disagreement:
        return {"verdict": "unsure"}
    verdict = judge(request, sighting, chains.clock_error(request.chain))
    words: dict[str, object] = {
        "verdict": verdict.word,
        "reason": verdict.reason,
        "transfers": [
            {"place": one.place, "sender": one.sender, "amount": str(one.amount)} for one in verdict.transfers
        ],
        "confirmations": sighting.confirmations,
    }
    if sighting.block is not None:
        words |= {
            "block_number": sighting.block.number,
            "block_hash": sighting.block.hash,
            "mined_at": sighting.block.mined_at,
        }
    return words


def _delay(look: int, transaction: object) -> timedelta:
    longest = LONGEST_DELAY_IN_A_BLOCK if transaction == "confirming" else LONGEST_DELAY
    return min(FIRST_DELAY * (1 << min(look - 1, 10)), longest)
