"""What makes a client's mutation happen once: a record per (session, request), in its own commit.

Records of one session lie side by side in order of their requests, so the first request of a
session asks for the newest record once; from then on, what is above everything accepted so far is
known to be new without a look into the store. Only knowledge is kept here: forgetting a session
costs its next request a look, and a race of two connections of one session is decided when they
commit, because the place of the record is among what the transaction has read.

Every record of a deployment is written through one `SessionRequests`.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from reactive_store.engine.catalog import SESSION_REQUESTS
from reactive_store.engine.interval import Interval
from reactive_store.engine.range_index import BY_ID
from reactive_store.engine.transaction import Transaction
from reactive_store.persistence.contract import Row

__all__ = ["SessionRequest", "SessionRequests"]

_SESSION_BYTES: Final = 12
_REQUEST_BYTES: Final = 4  # clients number their requests with 32 bits
_LARGEST: Final = b"\xff" * _REQUEST_BYTES


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """A session's own number for a mutation. Units   request_id: 0 to 2**32-1"""

    session_id: str
    request_id: int


class _Session:
    """What is known of one session."""

    __slots__ = ("new_from", "prefix")

    def __init__(self, session_id: str) -> None:
        digest = blake2b(session_id.encode(), digest_size=_SESSION_BYTES, person=b"session-request")
        self.prefix = digest.digest()
        # Requests from this one on have no record, accepted or durable. None: not yet asked.
        self.new_from: int | None = None


class SessionRequests:
    """The records of all sessions, and what is known of some of them."""

    __slots__ = ("_most_sessions", "_sessions")

    def __init__(self, most_sessions: int) -> None:
        self._most_sessions = most_sessions
        self._sessions: dict[str, _Session] = {}  # those met first go first

    def find(self, transaction: Transaction, request: SessionRequest) -> Row | None:
        """The record of a request that was accepted before this transaction began, or None.

        To be asked before anything has waited since the transaction began.

        Cost     nothing of the store for a request above all earlier ones, after the first
        """
        session = self._session(request.session_id)
        internal_id = _internal_id(session, request)
        if session.new_from is None:
            highest = Interval(internal_id, session.prefix + _LARGEST + b"\x00")
            # One row, not a page: each holds a whole result.
            newest = transaction.scan(SESSION_REQUESTS, BY_ID, highest, descending=True).take(1)
            session.new_from = request.request_id
            if newest:
                session.new_from = 1 + int.from_bytes(newest[0].id[_SESSION_BYTES:], "big")
        if request.request_id < session.new_from:
            return transaction.get(SESSION_REQUESTS, internal_id)
        transaction.remember(SESSION_REQUESTS, internal_id)
        return None

    def record(
        self, transaction: Transaction, request: SessionRequest, result: str, lines: tuple[str, ...]
    ) -> None:
        """Let the transaction's commit hold the request's result (encoded) and log lines."""
        fields = {
            "logLines": list(lines),
            "request": request.request_id,
            "result": result,
            "session": request.session_id,
        }
        internal_id = _internal_id(self._session(request.session_id), request)
        transaction.record(SESSION_REQUESTS, internal_id, fields)

    def note_accepted(self, request: SessionRequest) -> None:
        """A commit with the request's record was accepted."""
        session = self._session(request.session_id)
        if session.new_from is not None and session.new_from <= request.request_id:
            session.new_from = request.request_id + 1

    def _session(self, session_id: str) -> _Session:
        sessions = self._sessions
        session = sessions.get(session_id)
        if session is None:
            session = sessions[session_id] = _Session(session_id)
            if len(sessions) > self._most_sessions:
                del sessions[next(iter(sessions))]
        return session


def _internal_id(session: _Session, request: SessionRequest) -> bytes:
    return session.prefix + request.request_id.to_bytes(_REQUEST_BYTES, "big")
