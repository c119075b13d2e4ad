"""Claude as a chat provider: replies streamed through Anthropic's own client, whose home this is.

Invariants: every failure of the service reaches the caller as `ChatError`; the key never appears in
a message. Questions that fail before the first piece are retried by the client library (rate
limits, overload, lost connections); `reply` also retries a stream that breaks midway, `stream`
cannot, because its pieces are already out.

Source: Anthropic's Messages API, streaming form (server-sent events).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Self

import anthropic

from reactive_store.kit.chat import ChatError

__all__ = ["ClaudeChat", "DEFAULT_MODEL"]

DEFAULT_MODEL = "claude-haiku-4-5"

_REASONS = {
    "authentication_error": "not_authorized",
    "permission_error": "not_authorized",
    "billing_error": "not_authorized",
    "invalid_request_error": "bad_request",
    "request_too_large": "bad_request",
    "not_found_error": "bad_request",
    "rate_limit_error": "rate_limited",
    "overloaded_error": "overloaded",
    "timeout_error": "unreachable",
    "api_error": "provider_error",
}
_FINAL = frozenset({"not_authorized", "bad_request"})


class ClaudeChat:
    """Answers through Claude. Close it when done, or use it as `async with`.

    Units    max_tokens per answer; timeout_s for one attempt, until the last piece
    Cost     one HTTP request per answer (up to `attempts` if a stream breaks midway)
    """

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str | None = None,
        model: str = DEFAULT_MODEL,
        max_tokens: int = 2048,
        attempts: int = 3,
        timeout_s: float = 120.0,
    ) -> None:
        if attempts < 1:
            raise ValueError(f"attempts must be at least 1, got {attempts}.")
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key, base_url=base_url, max_retries=attempts - 1, timeout=timeout_s
        )
        self._model = model
        self._max_tokens = max_tokens
        self._attempts = attempts

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self | None:
        """A provider configured by ANTHROPIC_API_KEY, _BASE_URL and _MODEL; None without a key."""
        api_key = env.get("ANTHROPIC_API_KEY")
        if not api_key:
            return None
        return cls(
            api_key=api_key,
            base_url=env.get("ANTHROPIC_BASE_URL") or None,
            model=env.get("ANTHROPIC_MODEL") or DEFAULT_MODEL,
        )

    @property
    def name(self) -> str:
        return "claude"

    async def stream(self, system: str, prompt: str) -> AsyncIterator[str]:
        """The answer in pieces, as Claude writes it.

        Raises   ChatError, possibly after some pieces
        """
        try:
            async with self._client.messages.stream(
                model=self._model,
                max_tokens=self._max_tokens,
                system=system,
                messages=[{"role": "user", "content": prompt}],
            ) as stream:
                async for piece in stream.text_stream:
                    yield piece
                stop_reason = (await stream.get_final_message()).stop_reason
        except Exception as error:
            # Everything: once a stream has begun, the client library lets its transport's errors
            # through, and which package defines them differs between its versions.
            raise _failure(error) from error
        if stop_reason is None:
            raise ChatError("Claude's answer ended early.", reason="interrupted", may_retry=True)
        if stop_reason == "refusal":
            raise ChatError("Claude declined to answer.", reason="refused", may_retry=False)

    async def reply(self, system: str, prompt: str) -> str:
        """The whole answer; asks again when a stream breaks midway.

        Raises   ChatError
        """
        attempt = 1
        while True:
            try:
                return "".join([piece async for piece in self.stream(system, prompt)])
            except ChatError as failure:
                # Failures before the first piece were retried by the client library already.
                midway = failure.reason in ("overloaded", "interrupted", "provider_error")
                if not midway or attempt == self._attempts:
                    raise
                attempt += 1

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()


def _failure(error: Exception) -> ChatError:
    if isinstance(error, anthropic.APIStatusError):
        # An error event inside a stream comes with HTTP status 200: the body's type is what counts.
        reason = _REASONS.get(_error_type(error.body), "provider_error")
        text = f"Claude's API answered {reason} (HTTP {error.status_code})."
    elif isinstance(error, anthropic.APIConnectionError):
        reason, text = "unreachable", "Claude's API could not be reached."
    else:
        reason, text = "interrupted", "Claude's answer broke off or could not be read."
    return ChatError(text, reason=reason, may_retry=reason not in _FINAL)


def _error_type(body: object) -> str:
    """`type` of {"error": {"type": …}}, the shape of every error body; "" when it has another."""
    error = body.get("error") if isinstance(body, Mapping) else None
    kind = error.get("type") if isinstance(error, Mapping) else None
    return kind if isinstance(kind, str) else ""
