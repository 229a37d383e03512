"""Whether a door answers, and is ready, as somebody outside sees it."""

import aiohttp

from console.doctor.finding import Finding

_TIMEOUT = aiohttp.ClientTimeout(total=10)
_MOST_WORDS = 300


async def look_at_door(url: str) -> list[Finding]:
    """Asks for /ready, as a platform does."""
    address = f"{url.rstrip('/')}/ready"
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as session,
            session.get(address, allow_redirects=False) as response,
        ):
            if response.status == 200:
                return []
            said = (await response.content.read(_MOST_WORDS)).decode(errors="replace")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return [
            Finding(
                "door_closed",
                f"nobody answers at {address} ({type(error).__name__})",
                "Webhooks are lost until their senders try again, and nobody inserts by HTTP.",
                "pulse web",
            )
        ]
    return [
        Finding(
            "door_not_ready",
            f"{address} answers {response.status}: {said}",
            "A platform sends it nothing as long as it says so.",
            "pulse check",
        )
    ]
