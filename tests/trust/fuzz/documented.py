"""What the reference pages promise about errors, read from the pages themselves.

An answer is right when it is of a class that stands there. So a code that the product gains
without its documentation fails here, and so does an error that nobody meant to give.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.trust.fuzz.shrinking import Find

__all__ = [
    "CLOSES",
    "REFUSALS",
    "check_failure_text",
    "check_frame",
    "check_leaks",
    "check_response",
    "id_refusals",
]

_REFERENCE = Path(__file__).resolve().parents[3] / "docs" / "reference"
_CODE = re.compile(r"`([A-Z][A-Za-z]+)`")

# Never in an answer of a deployment that redacts, whoever asks and whatever was sent.
_INTERNAL = (
    "INTERNAL-DETAIL",
    "LOGGED-DETAIL",
    "HIDDEN-DETAIL",
    "Traceback (most recent",
    "AppFault",
)
_PLACES = (str(_REFERENCE.parents[1]), "site-packages", "reactive_store/")


def _section(page: str, title: str) -> str:
    text = (_REFERENCE / page).read_text(encoding="utf-8")
    _, _, rest = text.partition(f"\n## {title}\n")
    assert rest, f"{page} has no section {title!r}"
    return rest.partition("\n## ")[0]


def _rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def _refusals() -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for row in _rows(_section("http-api.md", "Refusals")):
        for status in re.findall(r"\b[1-5]\d\d\b", row[0]):
            found.setdefault(int(status), set()).update(_CODE.findall(row[1]))
    # A sentence of the table's last column speaks of an administrator.
    found[400].add("UnsupportedEndpoint")
    # A refused handshake has its own table.
    section = _section("wire-protocol.md", "The socket")
    found[400] |= {code for row in _rows(section) for code in _CODE.findall(" ".join(row[1:]))}
    return found


def _closes() -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for row in _rows(_section("wire-protocol.md", "The end of a socket")):
        codes = [int(code) for code in re.findall(r"\b1\d\d\d\b", row[-1])]
        for code in codes:
            found.setdefault(code, set()).update(_CODE.findall(row[-1]))
    return found


def _failure_lines() -> list[re.Pattern[str]]:
    forms = [
        form
        for row in _rows(_section("functions.md", "Errors"))[1:]
        for form in re.findall(r"`([^`]+)`", " ".join(row))
    ]
    shown = [form for form in forms if " " in form and not form.startswith("Uncaught ValueError")]
    patterns = [_pattern(form) for form in shown]
    assert len(patterns) > 8, patterns
    return patterns


def _pattern(form: str) -> re.Pattern[str]:
    """A line as the page shows it: its examples stand for any path, kind and text."""
    text = re.escape(form)
    for example, stands_for in (
        ("messages\\.js:list", ".+"),
        ("messages:list", ".+"),
        ("Mutation", r"\w+"),
        ("Query", r"\w+"),
        ("16\\ MiB", ".+"),
        ("TEXT", "(?s:.*)"),
        ("PATH", ".+"),
        ("…", ".+"),
        ("COUNT", r"\d+"),
        ("COMPONENT", "(?s:.*)"),
    ):
        text = text.replace(example, stands_for)
    return re.compile(text)


REFUSALS = _refusals()
CLOSES = _closes()
_FAILURES = _failure_lines()
_REDACTED = re.compile(r"\[Request ID: [0-9A-Za-z-]{1,64}\] Server Error")


def id_refusals() -> list[str]:
    """How every text that is no id may be refused."""
    rows = _rows(_section("ids.md", "What is not an id"))[1:]
    return [form for row in rows for form in re.findall(r"`([^`]+)`", row[1])]


def check_leaks(text: str, secrets: tuple[str, ...], *, redact: bool) -> Find | None:
    """Does an answer show what its reader must not see?"""
    for secret in secrets:
        if secret in text:
            return Find("another user's data", f"{secret!r} in {text[:300]}")
    if redact:
        for part in (*_INTERNAL, *_PLACES):
            if part in text:
                return Find("internal text", f"{part!r} in {text[:300]}")
    elif "HIDDEN-DETAIL" in text:
        return Find("internal function", text[:300])
    return None


def check_failure_text(text: str, *, redact: bool) -> Find | None:
    """Is the text of a function's error one of those the pages list?"""
    head, newline, rest = text.partition("\n")
    if not _REDACTED.fullmatch(head) or redact != (not newline):
        return Find("error text", text[:300])
    if redact or rest.startswith("Uncaught AppFault: INTERNAL-DETAIL\n"):
        return None
    body = rest.removesuffix("\n")
    if any(pattern.match(body) for pattern in _FAILURES):
        return None
    return Find("undocumented error", rest[:400])


def check_response(status: int, body: bytes, *, is_call: bool, redact: bool) -> Find | None:
    """Is an HTTP answer of a documented class? `is_call`: 200 means that a function ran."""
    if status == 200:
        return _check_call(body, redact=redact) if is_call else None
    if status in {404, 405, 408} and (not body or status == 404):
        return None
    if status >= 500 or status not in REFUSALS:
        return Find(f"status {status}", body[:300].decode("latin-1"))
    try:
        refusal = json.loads(body)
        code, message = refusal["code"], refusal["message"]
    except (ValueError, KeyError, TypeError):
        return Find(f"status {status} without code", body[:300].decode("latin-1"))
    if set(refusal) != {"code", "message"} or type(message) is not str:
        return Find("form of a refusal", body[:300].decode("latin-1"))
    if code not in REFUSALS[status]:
        return Find(f"undocumented code {code} with status {status}", message[:300])
    return None


def _check_call(body: bytes, *, redact: bool) -> Find | None:
    try:
        answer = json.loads(body)
    except ValueError:
        return Find("answer is no JSON", body[:300].decode("latin-1"))
    answers = answer["results"] if set(answer) == {"results"} else [answer]
    for each in answers:
        if each.get("status") == "success":
            allowed = {"status", "value", "logLines"}
        else:
            allowed = {"status", "errorMessage", "errorData", "logLines"}
            if (
                find := check_failure_text(each.get("errorMessage", ""), redact=redact)
            ) is not None:
                return find
        if not set(each) <= allowed or (redact and each.get("logLines")):
            return Find("form of an answer", body[:300].decode("latin-1"))
    return None


_FRAMES: dict[str, set[str]] = {
    "Transition": {
        "type", "startVersion", "endVersion", "modifications", "clientClockSkew", "serverTs",
    },
    "TransitionChunk": {"type", "chunk", "partNumber", "totalParts", "transitionId"},
    "MutationResponse": {
        "type", "requestId", "success", "result", "ts", "logLines", "errorData",
    },
    "ActionResponse": {"type", "requestId", "success", "result", "logLines", "errorData"},
    "AuthError": {"type", "error", "baseVersion", "authUpdateAttempted"},
    "FatalError": {"type", "error"},
    "Ping": {"type"},
}  # fmt: skip
_FATAL = (
    "Received Invalid JSON on websocket: ",
    "Base version ",
)


def check_frame(message: Any, *, redact: bool) -> Find | None:
    """Is a message of the server of a documented form, its errors included?"""
    kind = message.get("type") if type(message) is dict else None
    if kind not in _FRAMES or not set(message) <= _FRAMES[kind]:
        return Find("form of a frame", json.dumps(message)[:300])
    texts: list[str] = []
    if kind == "Transition":
        texts = [m["errorMessage"] for m in message["modifications"] if m["type"] == "QueryFailed"]
    elif kind.endswith("Response") and not message["success"]:
        texts = [message["result"]]
    elif kind == "FatalError" and not message["error"].startswith(_FATAL):
        return Find("undocumented fatal error", message["error"][:300])
    return next(filter(None, (check_failure_text(text, redact=redact) for text in texts)), None)
