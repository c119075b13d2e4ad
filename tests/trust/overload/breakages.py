"""What the overload tests have to notice."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from reactive_store.functions.metering import Watchdog
from reactive_store.server import requests, serving
from reactive_store.sync.session import Session
from tests.trust.breakage import Breakage

__all__ = ["BREAKAGES", "NO_PLACES", "NO_SIZE", "NO_WATCHDOG", "UNMERGED"]


def _unmerge(monkeypatch: pytest.MonkeyPatch) -> None:
    def may_compute(session: Session) -> bool:
        return session._is_due and session._computing is None and not session._is_paused

    monkeypatch.setattr(Session, "_may_compute", may_compute)


def _never_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watchdog, "_interrupt", lambda _watchdog, _step: None)


def _any_number_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    original = requests.Endpoints.__init__

    def init(endpoints: Any, backend: Any, *, limits: Any, runtime: Any) -> None:
        limits = dataclasses.replace(limits, concurrent_requests=1_000_000)
        original(endpoints, backend, limits=limits, runtime=runtime)

    monkeypatch.setattr(requests.Endpoints, "__init__", init)


def _messages_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    original = serving._server

    def server(app: Any, lifespan: Any, limits: Any, *rest: Any) -> Any:
        return original(app, lifespan, dataclasses.replace(limits, message_bytes=1 << 40), *rest)

    monkeypatch.setattr(serving, "_server", server)


UNMERGED = Breakage(
    "unmerged-transitions",
    "bounded",
    "a transition is made for every commit, whether or not the client has taken the last one",
    _unmerge,
)
NO_WATCHDOG = Breakage(
    "no-watchdog",
    "bounded",
    "a handler that computes for ever is never interrupted",
    _never_interrupt,
)
NO_PLACES = Breakage(
    "no-places",
    "bounded",
    "any number of HTTP requests runs at a time",
    _any_number_of_requests,
)
NO_SIZE = Breakage(
    "no-message-size",
    "bounded",
    "a message on a socket may have any size",
    _messages_of_any_size,
)

BREAKAGES = [UNMERGED, NO_WATCHDOG, NO_PLACES, NO_SIZE]
