"""The breakages that the fuzz tests must find: each takes one check of the product away."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from typing import Any

import pytest

from reactive_store.auth.keys import AdminKeys
from reactive_store.functions import live_queries, pagination, runner
from reactive_store.functions.outcome import Failure
from reactive_store.limits import Limits
from reactive_store.persistence import batch_code
from reactive_store.server import functions as http_functions
from reactive_store.server import socket_protocol
from reactive_store.sync import worker
from reactive_store.values import ids, wire
from tests.trust.breakage import Breakage

__all__ = ["BREAKAGES", "named"]


class _AnyNumber(int):
    """Says that it equals every number."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


class _AnyBytes(bytes):
    """Says that it equals all bytes."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = bytes.__hash__


def _ids_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ids._fletcher16
    monkeypatch.setattr(ids, "_fletcher16", lambda data: _AnyNumber(right(data)))


def _seal_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    right = pagination.CursorCodec._seal
    monkeypatch.setattr(
        pagination.CursorCodec, "_seal", lambda self, content: _AnyBytes(right(self, content))
    )


def _cursor_of_any_query(monkeypatch: pytest.MonkeyPatch) -> None:
    right = pagination.CursorCodec.decode

    def decode(self: Any, query: bytes, cursor: str) -> bytes | None:
        try:
            return right(self, query, cursor)
        except pagination.BadRequest as error:
            if "different query" not in error.message:
                raise
        data = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        seal = data[: self._SEAL_BYTES]
        content = self._mask(seal, data[self._SEAL_BYTES :])
        return right(self, content[1 : 1 + self._FINGERPRINT_BYTES], cursor)

    monkeypatch.setattr(pagination.CursorCodec, "decode", decode)


def _endless_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    right = socket_protocol.ServerProtocol
    monkeypatch.setattr(
        socket_protocol,
        "ServerProtocol",
        lambda extensions, max_size: right(extensions=extensions, max_size=None),
    )


def _endless_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_FORMAT", Limits(value_nesting=100_000))


def _texts_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(failure: Failure, request_id: str, *, redact: bool) -> str:
        return f"[Request ID: {request_id}] Server Error\n{failure.message}"

    for module in (http_functions, live_queries, worker):
        monkeypatch.setattr(module, "client_message", shown)


def _key_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        AdminKeys, "verify", lambda self, key: bool(key) and self._key.startswith(key.strip())
    )


def _batches_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    right = batch_code.crc32
    monkeypatch.setattr(batch_code, "crc32", lambda data: _AnyNumber(right(data)))


def _watches_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.Worker, "_close_watches", lambda self: None)


def _identity_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    right = runner.Runner.run_query

    async def run_query(self: Any, *args: Any, **options: Any) -> Any:
        run = await right(self, *args, **options)
        return runner.QueryRun(run.outcome, run.reads, False, run.ts)

    monkeypatch.setattr(runner.Runner, "run_query", run_query)


def _insider_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    right = runner.find_function

    def find(app: Any, path: str, kind: Any, *, is_trusted: bool) -> Any:
        return right(app, path, kind, is_trusted=True)

    monkeypatch.setattr(runner, "find_function", find)


def _http_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(text: str) -> str:
        if "\0" in text:
            raise IndexError(text)
        return right(text)

    right = http_functions.parse_path
    monkeypatch.setattr(http_functions, "parse_path", parse)


def _breakage(name: str, text: str, apply: Any) -> Breakage:
    return Breakage(name, "robust", text, apply)


BREAKAGES: list[Breakage] = [
    _breakage("id-checksum", "the checksum of an id is not compared", _ids_unchecked),
    _breakage("cursor-seal", "the seal of a cursor is not compared", _seal_unchecked),
    _breakage("cursor-query", "a cursor is taken for any query", _cursor_of_any_query),
    _breakage("frame-limit", "a message on a socket may have any length", _endless_messages),
    _breakage("json-depth", "arguments may be nested to any depth", _endless_depth),
    _breakage("redact", "the text of an exception is told although it should not", _texts_shown),
    _breakage("key-prefix", "the beginning of an admin key is enough", _key_prefix),
    _breakage(
        "batch-checksum", "the checksum of a logged batch is not compared", _batches_unchecked
    ),
    _breakage("kept-watches", "what a socket watched is kept when it ends", _watches_kept),
    _breakage("shared-identity", "one user's live query answers another's", _identity_forgotten),
    _breakage("internal-call", "internal functions can be called by anybody", _insider_functions),
    _breakage("http-crash", "one path makes an endpoint raise", _http_crashes),
]


def named(*names: str) -> list[Breakage]:
    """The breakages of these names."""
    found = [breakage for breakage in BREAKAGES if breakage.name in names]
    assert len(found) == len(names), names
    return found
