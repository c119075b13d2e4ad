"""`reactive-store init`: a small project that works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated, Final

import typer

from reactive_store.errors import BadRequest

__all__ = ["init_command"]

_SCHEMA: Final = '''"""What is stored: tables, their fields and their indexes."""

from reactive_store import define_schema, define_table, v

schema = define_schema(
    {
        "messages": define_table(
            {
                "channel": v.string(),
                "author": v.string(),
                "body": v.string(),
            }
        ).index("by_channel", ["channel"]),
    }
)
'''

_MESSAGES: Final = '''"""Messages: `api.messages.list` and `api.messages.send` for clients."""

from reactive_store import ConvexError, Document, MutationCtx, QueryCtx, mutation, query


@query
async def list(ctx: QueryCtx, channel: str = "general", limit: int = 50) -> list[Document]:
    """The newest messages of a channel, newest first. Clients that show it see new ones at once."""
    messages = ctx.db.query("messages").with_index("by_channel", channel=channel)
    return await messages.order("desc").take(limit)


@mutation
async def send(ctx: MutationCtx, author: str, body: str, channel: str = "general") -> str:
    """Store a message; returns its id."""
    if not body.strip():
        raise ConvexError({"code": "empty_message"})
    return await ctx.db.insert("messages", {"channel": channel, "author": author, "body": body})
'''

_README: Final = """# {name}

A backend of tables, functions and live queries, made with reactive_store.

- `schema.py` says what is stored.
- `functions/messages.py` says what clients may do: `messages:list` and `messages:send`.

```sh
reactive-store dev          # serves on http://127.0.0.1:3210 and reloads on save
```

In a second terminal:

```sh
reactive-store run messages:list --watch
reactive-store run messages:send '{{"author": "Ann", "body": "Hello"}}'
reactive-store data messages
```

In a page, with the npm package `convex`:

```javascript
import {{ ConvexClient }} from "convex/browser";
import {{ anyApi as api }} from "convex/server";

const client = new ConvexClient("http://127.0.0.1:3210");
client.onUpdate(api.messages.list, {{}}, (messages) => console.log(messages));
await client.mutation(api.messages.send, {{ author: "Ann", body: "Hello" }});
```

`reactive-store serve` is for production. Data is in `.reactive_store/`.
"""

_IGNORED: Final = (".reactive_store/", ".env.local", "__pycache__/")


def init_command(
    directory: Annotated[
        Path, typer.Argument(help="Where; by default here.", metavar="[DIR]")
    ] = Path(),
) -> None:
    """Write a small working project: schema, functions, README.

    Nothing is overwritten; an existing .gitignore gets the lines it lacks.
    """
    root = directory.absolute()
    name = re.sub(r"[^\w.-]+", "-", root.name) or "app"
    files = {
        root / "schema.py": _SCHEMA,
        root / "functions" / "messages.py": _MESSAGES,
        root / "README.md": _README.format(name=name),
    }
    in_the_way = [path for path in files if path.exists()]
    if in_the_way:
        shown = ", ".join(str(path.relative_to(root)) for path in in_the_way)
        raise BadRequest(
            f"{root} already has {shown}, and nothing is overwritten. Choose another folder, or "
            "move these files away.",
            code="FilesInTheWay",
        )
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {directory / path.relative_to(root)}")
        if _ignore(root / ".gitignore"):
            print(f"wrote {directory / '.gitignore'}")
    except OSError as error:
        raise BadRequest(f"{error.filename or root} cannot be written: {error.strerror}") from error
    where = "" if directory == Path() else f" --app {shlex.quote(str(directory))}"
    print(f"\nNext: reactive-store dev{where}")


def _ignore(path: Path) -> bool:
    """Add to a .gitignore what is not to be committed; whether anything was missing."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    known = {line.strip().strip("/") for line in before.splitlines()}
    missing = [line for line in _IGNORED if line.strip("/") not in known]
    if missing:
        gap = "\n" if before and not before.endswith("\n") else ""
        path.write_text(before + gap + "\n".join(missing) + "\n", encoding="utf-8")
    return bool(missing)
