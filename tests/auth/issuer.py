"""A real issuer of tokens on this machine: keys, discovery, key sets, and every way to fail.

`LocalIssuer` serves until its block ends. What it answers next is in `answers`: a path's status,
headers, body or delay. Browsers and Node get tokens from `/token?subject=…&seconds=…`.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

__all__ = ["AUDIENCE", "DISCOVERY", "JWKS", "Answer", "Key", "LocalIssuer", "data_uri", "key_of"]

AUDIENCE = "the-app"
DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/jwks.json"

_MADE: dict[tuple[str, int], Any] = {}  # keys are slow to make and may be shared


def _private(algorithm: str, number: int) -> Any:
    key = _MADE.get((algorithm, number))
    if key is None:
        if algorithm == "RS256":
            key = rsa.generate_private_key(65537, 2048)
        elif algorithm == "ES256":
            key = ec.generate_private_key(ec.SECP256R1())
        else:
            key = ed25519.Ed25519PrivateKey.generate()
        _MADE[(algorithm, number)] = key
    return key


@dataclass(frozen=True)
class Key:
    """A signing key under a name."""

    algorithm: str
    kid: str
    private: Any

    @property
    def public(self) -> dict[str, Any]:
        """The entry of a key set."""
        writer = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
        found = writer[self.algorithm].to_jwk(self.private.public_key(), as_dict=True)
        return {**found, "kid": self.kid, "use": "sig", "alg": self.algorithm}

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """A token; a header of None is left out."""
        fields = {"kid": self.kid, **header}
        return jwt.encode(claims, self.private, algorithm=self.algorithm, headers=fields)


def key_of(algorithm: str, number: int = 1) -> Key:
    """The key of that number; the same one each time."""
    return Key(algorithm, f"{algorithm}-{number}", _private(algorithm, number))


def data_uri(*keys: Key) -> str:
    """A key set as a `data:` URI."""
    text = json.dumps({"keys": [key.public for key in keys]})
    return "data:application/json;base64," + base64.b64encode(text.encode()).decode()


@dataclass
class Answer:
    """How a path is answered instead of properly."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay_s: float = 0.0


class LocalIssuer:
    """An issuer with one signing key at a time."""

    def __init__(self, algorithm: str = "RS256") -> None:
        self.key = key_of(algorithm)
        self.published = [self.key]
        self.answers: dict[str, Answer] = {}
        self.requests: list[str] = []  # paths, in order of arrival
        self.pages: dict[str, tuple[str, bytes]] = {}  # further files, by path: type, content
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        assert self._thread is not None
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """What its tokens call it."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_port}"

    def fetches(self, path: str) -> int:
        """How often a path was asked for."""
        return self.requests.count(path)

    def rotate(self, *, keep: bool = False) -> None:
        """Sign with another key from now on; publish the old one beside it or not."""
        self.key = key_of(self.key.algorithm, int(self.key.kid.rpartition("-")[2]) + 1)
        self.published = [self.key, *(self.published if keep else ())]

    def claims(self, subject: str = "ann", **changes: Any) -> dict[str, Any]:
        """The claims of a good token of an hour; None takes one out. `now` moves its time."""
        now = changes.pop("now", time.time())
        found = {
            "iss": self.url,
            "sub": subject,
            "aud": AUDIENCE,
            "iat": int(now),
            "exp": int(now) + 3600,
            **changes,
        }
        return {name: value for name, value in found.items() if value is not None}

    def token(self, subject: str = "ann", **changes: Any) -> str:
        """A token signed with the present key."""
        return self.key.sign(self.claims(subject, **changes))

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        parts = urlsplit(request.path)
        self.requests.append(parts.path)
        planned = self.answers.get(parts.path, Answer())
        if planned.delay_s:
            time.sleep(planned.delay_s)
        kind, body = self._content(parts.path, parse_qs(parts.query))
        if planned.body is not None:
            body = planned.body
        status = planned.status if kind else 404
        headers = {"Content-Type": kind or "text/plain", **planned.headers}
        try:
            request.send_response(status)
            for name, value in headers.items():
                request.send_header(name, value)
            request.send_header("Content-Length", str(len(body)))
            request.send_header("Access-Control-Allow-Origin", "*")
            request.end_headers()
            request.wfile.write(body)
        except OSError:
            pass  # whoever asked has had enough

    def _content(self, path: str, query: dict[str, list[str]]) -> tuple[str, bytes]:
        if path == DISCOVERY:
            return "application/json", json.dumps(
                {"issuer": self.url, "jwks_uri": f"{self.url}{JWKS}"}
            ).encode()
        if path == JWKS:
            keys = [key.public for key in self.published]
            return "application/jwk-set+json", json.dumps({"keys": keys}).encode()
        if path == "/token":
            now = time.time()
            seconds = float(query.get("seconds", ["3600"])[0])
            claims = {name: values[0] for name, values in query.items() if name == "name"}
            text = self.token(
                query["subject"][0], iat=int(now), exp=now + seconds, jti=str(now), **claims
            )
            return "text/plain", text.encode()
        return self.pages.get(path, ("", b""))
