"""Parts that several apps need, written on public names only. Import them by module.

`reactive_store.kit.chat` says what a chat provider is and ships one that needs no network;
`reactive_store.kit.claude` is the one that talks to Claude (install `reactive_store[claude]`).
"""

from __future__ import annotations

__all__: list[str] = []
