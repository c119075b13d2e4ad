"""One GET of a small document from an issuer, beside the event loop and within bounds.

The standard library's client waits, so it does that in a thread of its own; a thread that an issuer
keeps waiting is left behind and ends with its socket's timeout. Nothing here retries or remembers.

Invariants
- What is read is bounded in size, in time and in redirects.
- A redirect never leaves encryption, nor leads from the network to this machine.
"""

from __future__ import annotations

import asyncio
import http.client
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Final
from urllib.error import URLError
from urllib.parse import urljoin
from urllib.request import (
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from reactive_store.auth.providers import is_loopback_url, may_be_fetched

__all__ = ["FetchFailed", "Fetched", "fetch"]

_REDIRECTS: Final = 3
_REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
_CHUNK_BYTES: Final = 16 * 1024
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?(\d{1,10})", re.IGNORECASE)
_NOT_KEPT: Final = re.compile(r"(?:^|[,\s])no-(?:store|cache)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What an issuer answered. `fresh_s`: how long it may be kept; None: it did not say."""

    status: int
    content_type: str | None
    body: bytes
    fresh_s: float | None


class FetchFailed(Exception):
    """There was no answer, or none that may be used; the text says why."""


async def fetch(url: str, *, seconds: float, max_bytes: int) -> Fetched:
    """The answer to one GET, whatever its status.

    Raises   FetchFailed
    """
    if not may_be_fetched(url, from_loopback=True):
        raise FetchFailed(f"{url} is neither https:// nor on this machine")
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Fetched | Exception] = loop.create_future()
    gave_up = threading.Event()

    def tell(outcome: Fetched | Exception) -> None:
        if not answer.done():
            answer.set_result(outcome)

    def work() -> None:
        outcome: Fetched | Exception
        try:
            outcome = _get(url, seconds, max_bytes, gave_up)
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            outcome = error
        try:
            loop.call_soon_threadsafe(tell, outcome)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    threading.Thread(target=work, name="auth keys", daemon=True).start()
    try:
        async with asyncio.timeout(seconds):
            outcome = await answer
    except TimeoutError:
        raise FetchFailed(f"no answer within {seconds:g} s") from None
    finally:
        gave_up.set()
    if isinstance(outcome, Fetched):
        return outcome
    if isinstance(outcome, URLError):
        raise FetchFailed(str(outcome.reason)) from outcome
    raise FetchFailed(str(outcome) or type(outcome).__name__) from outcome


def _get(url: str, seconds: float, max_bytes: int, gave_up: threading.Event) -> Fetched:
    from_loopback = is_loopback_url(url)
    for _ in range(_REDIRECTS + 1):
        with _opener(url).open(_request(url), timeout=seconds) as response:
            location = response.headers.get("Location")
            if response.status not in _REDIRECT_STATUSES or not location:
                return _read(response, max_bytes, gave_up)
        url = urljoin(url, location)
        if not may_be_fetched(url, from_loopback=from_loopback):
            raise FetchFailed("it redirects to where keys are not read from")
    raise FetchFailed(f"it redirects more than {_REDIRECTS} times")


def _request(url: str) -> Request:
    headers = {"Accept": "application/json", "User-Agent": "reactive_store"}
    return Request(url, headers=headers)  # noqa: S310 - http and https only, as checked


def _opener(url: str) -> OpenerDirector:
    # Put together by hand: the ready-made one also opens files, and follows redirects by itself.
    opener = OpenerDirector()
    proxies: Mapping[str, str] | None = {} if is_loopback_url(url) else None
    opener.add_handler(ProxyHandler(None if proxies is None else dict(proxies)))
    opener.add_handler(HTTPHandler())
    opener.add_handler(HTTPSHandler())
    opener.add_handler(UnknownHandler())
    return opener


def _read(response: http.client.HTTPResponse, max_bytes: int, gave_up: threading.Event) -> Fetched:
    body = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise FetchFailed(f"the answer is longer than {max_bytes} bytes")
        if gave_up.is_set():
            raise FetchFailed("nobody waits any more")
    headers = response.headers
    return Fetched(response.status, headers.get("Content-Type"), bytes(body), _fresh_s(headers))


def _fresh_s(headers: Message) -> float | None:
    text = ", ".join(str(value) for value in headers.get_all("Cache-Control", []))
    if _NOT_KEPT.search(text):
        return 0.0
    found = _MAX_AGE.search(text)
    if found is None:
        return None
    age = str(headers.get("Age", "")).strip()
    return max(0.0, float(found.group(1)) - (float(age) if age.isdecimal() else 0.0))
