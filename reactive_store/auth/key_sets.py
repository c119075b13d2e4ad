"""The public keys of issuers: what a key set holds, and where one comes from.

A `KeySet` never changes. A `KeySource` gives the present one of an issuer: it fetches when nothing
fresh is at hand, once for everybody who waits, and not again before some time has passed, whatever
tokens arrive meanwhile.

Invariants
- A key set is used for at most `key_set_seconds` after it was fetched, even when no newer one can
  be had.
- Fetches of one source are paced; beyond the pace the last answer, or the last failure, stands.
- Sources are independent: one that hangs or fails delays nobody else's tokens.

Source: RFC 7517; OpenID Connect Discovery 1.0; Convex's open server for codes and texts
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from jwt.algorithms import Algorithm, get_default_algorithms
from jwt.exceptions import InvalidKeyError

from reactive_store.auth.fetching import Fetched, FetchFailed, fetch
from reactive_store.auth.providers import (
    JwtProvider,
    OidcProvider,
    is_loopback_url,
    may_be_fetched,
    read_data_uri,
)
from reactive_store.errors import (
    BadRequest,
    Forbidden,
    NotFound,
    Overloaded,
    StoreError,
    Unauthenticated,
)
from reactive_store.limits import Limits
from reactive_store.runtime import Runtime

__all__ = ["KeySet", "KeySource", "Load", "Loaded", "load_of", "parse_key_set"]

# The members that say which key it is, by algorithm. Others, private parts say, are not looked at.
_MEMBERS: Final[Mapping[str, Mapping[str, str | None]]] = {
    "RS256": {"kty": "RSA", "n": None, "e": None},
    "ES256": {"kty": "EC", "crv": "P-256", "x": None, "y": None},
    "EdDSA": {"kty": "OKP", "crv": "Ed25519", "x": None},
}
_ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    name: algorithm for name, algorithm in get_default_algorithms().items() if name in _MEMBERS
}
_RSA_BITS: Final = 2048
_JSON_TYPES: Final = ("application/json", "application/jwk-set+json")
_CHARSET: Final = re.compile(r"charset\s*=\s*\"?([\w-]+)", re.IGNORECASE)
_SHOWN_CHARS: Final = 300  # of what an issuer answered

_BURST: Final = 5.0  # fetches in a row, before the pace counts
_UNSAID_S: Final = 60.0  # how long keys are kept when the issuer says nothing about it
_SHORTEST_S: Final = 5.0


class KeySet:
    """Public keys by their ids. Immutable; a key is read when a token first names it.

    `issuer`: what the discovery document calls its issuer; None when there was none.
    """

    __slots__ = ("_ready", "_stored", "issuer")

    def __init__(self, keys: tuple[Mapping[str, Any], ...], issuer: str | None = None) -> None:
        self.issuer = issuer
        self._stored = keys
        self._ready: dict[tuple[str, str | None], Any] = {}

    def verify(self, algorithm: str, key_id: str | None, signed: bytes, signature: bytes) -> bool:
        """Whether a signature was made by the key named, or by the only one when none is.

        Cost     20 to 100 µs
        """
        key = self._key(algorithm, key_id)
        if key is None:
            return False
        return bool(_ALGORITHMS[algorithm].verify(signed, key, signature))

    def _key(self, algorithm: str, key_id: str | None) -> Any:
        wanted = (algorithm, key_id)
        if wanted in self._ready:
            return self._ready[wanted]
        members = _MEMBERS.get(algorithm)
        if members is None:
            return None
        fitting = [
            stored
            for stored in self._stored
            if _fits(stored, algorithm, members) and key_id in (None, stored.get("kid"))
        ]
        if not fitting or (key_id is None and len(fitting) > 1):
            return None
        key = _read_key(algorithm, {name: fitting[0][name] for name in members})
        if key is not None:
            self._ready[wanted] = key  # as many as there are keys stored
        return key


def _fits(stored: Mapping[str, Any], algorithm: str, members: Mapping[str, str | None]) -> bool:
    return (
        stored.get("use", "sig") == "sig"
        and stored.get("alg", algorithm) == algorithm
        and all(
            isinstance(stored.get(name), str) and value in (None, stored[name])
            for name, value in members.items()
        )
    )


def _read_key(algorithm: str, members: dict[str, Any]) -> Any:
    try:
        key: Any = _ALGORITHMS[algorithm].from_jwk(members)
    except (InvalidKeyError, ValueError, TypeError, OverflowError):
        return None
    return None if algorithm == "RS256" and key.key_size < _RSA_BITS else key


def parse_key_set(text: bytes, issuer: str | None = None) -> KeySet:
    """The key set a JWKS document holds. Keys of unknown kinds do no harm.

    Raises   ValueError
    """
    try:
        document = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise ValueError("it has no list `keys`")
    return KeySet(tuple(key for key in keys if isinstance(key, dict)), issuer)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A key set and how long it stays fresh. None: the issuer did not say."""

    keys: KeySet
    fresh_s: float | None


Load: TypeAlias = Callable[[Limits], Awaitable[Loaded]]


class KeySource:
    """The present keys of one issuer."""

    def __init__(self, load: Load, runtime: Runtime, limits: Limits) -> None:
        """`load` fetches the keys, or raises a StoreError that says why there are none."""
        self._load = load
        self._runtime = runtime
        self._limits = limits
        # Of the last fetch that gave keys. Both ends are monotonic seconds.
        self._keys: KeySet | None = None
        self._fresh_until_s = self._usable_until_s = 0.0
        # Of the last fetch, when it gave none.
        self._failure: StoreError | None = None
        # How many fetches may begin now, as of when; refilled as time passes.
        self._allowance = _BURST
        self._counted_s = runtime.monotonic_s()
        # The fetch under way; everybody who needs one waits for it.
        self._fetching: asyncio.Task[None] | None = None

    async def keys(self) -> KeySet:
        """The keys to check a token with.

        Cost     nothing while they are fresh, else a fetch
        Raises   what `load` raised, when there are none that may be used
        """
        now_s = self._runtime.monotonic_s()
        if self._keys is None or now_s >= self._fresh_until_s:
            await self._fetched()
        if self._keys is not None and self._runtime.monotonic_s() < self._usable_until_s:
            return self._keys
        assert self._failure is not None
        # A new one each time: an exception that is raised collects the traces of all who raise it.
        raise type(self._failure)(self._failure.message, code=self._failure.code)

    async def newer(self, known: KeySet) -> KeySet | None:
        """Keys that may know a token which those at hand do not; None when there are no others."""
        if self._keys is known:
            await self._fetched()
        return self._keys if self._keys is not known else None

    async def close(self) -> None:
        """Stop waiting for the issuer."""
        task, self._fetching = self._fetching, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _fetched(self) -> None:
        """Wait for a fetch, unless it is too early for one."""
        task = self._fetching
        if task is None or task.done():
            if not self._may_fetch():
                return
            task = self._fetching = self._runtime.spawn(self._fetch(), name="auth keys")
        await asyncio.shield(task)

    def _may_fetch(self) -> bool:
        now_s = self._runtime.monotonic_s()
        earned = (now_s - self._counted_s) / self._limits.key_set_pause_seconds
        self._allowance = min(_BURST, self._allowance + earned)
        self._counted_s = now_s
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    async def _fetch(self) -> None:
        try:
            loaded = await self._load(self._limits)
        except StoreError as error:
            self._failure = error
            # Keys that may still be used are, for a while, without asking again.
            self._fresh_until_s = self._runtime.monotonic_s() + self._limits.key_set_pause_seconds
            return
        now_s, longest_s = self._runtime.monotonic_s(), self._limits.key_set_seconds
        fresh_s = _UNSAID_S if loaded.fresh_s is None else loaded.fresh_s
        self._keys = loaded.keys
        self._failure = None
        self._fresh_until_s = now_s + min(max(fresh_s, _SHORTEST_S), longest_s)
        self._usable_until_s = now_s + longest_s


def load_of(provider: OidcProvider | JwtProvider) -> Load:
    """How the keys of a provider are had."""
    if isinstance(provider, OidcProvider):
        return _Discovery(provider.issuer).load
    if provider.jwks.startswith("data:"):
        return _Inline(read_data_uri(provider.jwks)).load
    return _Published(provider.jwks).load


class _Inline:
    """Keys that stand in the configuration."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    async def load(self, _limits: Limits) -> Loaded:
        try:
            return Loaded(parse_key_set(self._text), float("inf"))
        except ValueError as error:
            raise _bad_keys(f"it cannot be read: {error}") from error


class _Published:
    """Keys at a URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def load(self, limits: Limits) -> Loaded:
        try:
            answer = await fetch(
                self._url, seconds=limits.key_set_fetch_seconds, max_bytes=limits.key_set_bytes
            )
        except FetchFailed as error:
            raise _bad_keys(f"it cannot be fetched: {error}") from error
        if answer.status >= 500 or answer.status == 429:
            raise Overloaded(
                f"Could not fetch the key set of the auth provider: status {answer.status}",
                code="AuthProviderUnavailable",
            )
        if answer.status != 200:
            raise _bad_keys(f"the answer has status {answer.status}")
        if not _is_json(answer.content_type):
            raise _bad_keys(f"the answer is {answer.content_type or 'of no type'}, not JSON")
        try:
            return Loaded(parse_key_set(answer.body), answer.fresh_s)
        except ValueError as error:
            raise _bad_keys(f"it cannot be read: {error}") from error


def _bad_keys(problem: str) -> Unauthenticated:
    return Unauthenticated(
        f"Could not validate token: the auth provider's key set: {problem}",
        code="InvalidAuthHeader",
    )


def _is_json(content_type: str | None) -> bool:
    kind = (content_type or "").partition(";")[0].strip().lower()
    charset = _CHARSET.search(content_type or "")
    return kind in _JSON_TYPES and (
        charset is None or charset.group(1).lower() in ("utf-8", "utf8")
    )


class _Discovery:
    """Keys at the URL that an OpenID Connect issuer's own description names."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer

    async def load(self, limits: Limits) -> Loaded:
        description = await self._get(f"{self._issuer}/.well-known/openid-configuration", limits)
        try:
            document = json.loads(description.body)
            issuer, url = document["issuer"], document["jwks_uri"]
            if not isinstance(issuer, str) or not isinstance(url, str):
                raise TypeError("issuer and jwks_uri are no texts")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._failed("its description cannot be read") from error
        if not may_be_fetched(url, from_loopback=is_loopback_url(self._issuer)):
            raise self._failed("its keys are neither at an https:// URL nor on this machine")
        answer = await self._get(url, limits)
        told = [each.fresh_s for each in (description, answer) if each.fresh_s is not None]
        try:
            return Loaded(parse_key_set(answer.body, issuer), min(told, default=None))
        except ValueError as error:
            raise self._failed(f"its keys cannot be read: {error}") from error

    async def _get(self, url: str, limits: Limits) -> Fetched:
        try:
            answer = await fetch(
                url, seconds=limits.key_set_fetch_seconds, max_bytes=limits.key_set_bytes
            )
        except FetchFailed as error:
            raise self._failed(str(error)) from error
        if answer.status == 200:
            return answer
        body = answer.body[: 4 * _SHOWN_CHARS].decode(errors="replace")[:_SHOWN_CHARS]
        raise self._failed(f"{answer.status} {body}".rstrip(), _class_of(answer.status))

    def _failed(self, problem: str, cls: type[StoreError] = BadRequest) -> StoreError:
        return cls(
            f"Auth provider discovery of {self._issuer} failed: {problem}",
            code="AuthProviderDiscoveryFailed",
        )


def _class_of(status: int) -> type[StoreError]:
    """What the issuer's refusal makes of the caller's: later may be better, or it never will be."""
    if status >= 500 or status == 429:
        return Overloaded
    return {401: Unauthenticated, 403: Forbidden, 404: NotFound}.get(status, BadRequest)
