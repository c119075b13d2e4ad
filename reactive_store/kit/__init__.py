"""Parts that several apps need, written on public names only. Import them by module.

What Convex users install beside the platform: `rules`, `triggers` and `constraints` are layers over
`ctx.db`, `custom_functions` makes decorators that apply them, `sessions` is such decorators;
`filter` and `relationships` read, `aggregate` and `sharded_counter` count. `rate_limit`,
`presence` and `action_cache` keep small records; `workpool`, `workflow` and `migrations` are work
that goes on by itself, and survives restarts. See docs/guide/kit.

`chat` says what a chat provider is and ships one that needs no network; `claude` is the one that
talks to Claude (install `reactive_store[claude]`).
"""

from __future__ import annotations

__all__: list[str] = []
