"""Migrations: change every document of a table, in batches, while the app goes on.

    migrations = Migrations()
    migrations_turn = migrations.function         # in a module of functions/: gives it a path

    @migrations.define("messages")
    async def add_channel(ctx: MutationCtx, doc: Document) -> dict[str, Any] | None:
        return {"channel": "general"} if "channel" not in doc else None

    await migrations.start(ctx, "add_channel", "another")   # one after the other

- A batch is one transaction, which also moves the place where the next one begins: a restart, a
  crash or an error loses at most a batch that was not committed, and none is done twice.
- How far it is stands in a document, so a query of it is live.
- Documents that come in while it runs are new; whether they are seen as well is not said.

The app declares the table: `define_schema({**migration_tables(), …})`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from reactive_store import (
    Document,
    MutationCtx,
    PaginationOpts,
    QueryCtx,
    TableDefinition,
    define_table,
    internal_mutation,
    v,
)

__all__ = ["DryRun", "Migrations", "migration_tables"]

_TABLE: Final = "migrations"
_BY_NAME: Final = "by_name"
_COUNTED_AT_ONCE: Final = 500
_SAMPLES: Final = 3
_UNFINISHED: Final = frozenset(("counting", "running"))

MigrateOne = Callable[[MutationCtx, Document], Awaitable[Mapping[str, Any] | None]]
"""Changes one document: what it returns is patched into it; it may also write itself."""


def migration_tables() -> dict[str, TableDefinition]:
    """The table of all migrations, to be merged into the schema."""
    fields = {
        "name": v.string(),
        "table": v.string(),
        "state": v.literals("counting", "running", "done", "failed", "canceled"),
        "cursor": v.nullable(v.string()),
        "processed": v.number(),
        "total": v.nullable(v.number()),
        "error": v.nullable(v.string()),
        "next": v.array(v.string()),  # what is to be started when this is done
        "startedAt": v.number(),
        "endedAt": v.nullable(v.number()),
        "job": v.nullable(v.string()),  # the scheduled function that does the next batch
    }
    return {_TABLE: define_table(fields).index(_BY_NAME, ["name"])}


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a migration would have done to its first batch.

    Shapes   samples: (before, after) of the first documents it changes; after is None for one that
             it deletes
    """

    processed: int
    changed: int
    samples: list[tuple[Document, Document | None]]


@dataclass(frozen=True, slots=True)
class _Migration:
    table: str
    batch: int
    migrate: MigrateOne


class _UndoError(Exception):
    """Ends the savepoint of a dry run."""


class _DocumentError(Exception):
    """A document could not be migrated; the text names it."""


class Migrations:
    """The migrations of an app. Made once, at module level; `function` gets a path in a module."""

    def __init__(self, name: str = "migrations") -> None:
        self._migrations: dict[str, _Migration] = {}

        async def turn(ctx: MutationCtx, migration: str) -> None:
            await self._turn(ctx, migration)

        turn.__name__ = f"{name}_turn"
        self.function = internal_mutation(turn)
        """The internal function that does a batch. `migrations_turn = migrations.function` in a
        module of functions/ makes it part of the app."""

    def define(self, table: str, *, batch: int = 100) -> Callable[[MigrateOne], MigrateOne]:
        """Decorates `async def name(ctx, doc)`, which its name stands for.

        Shapes   batch: documents of one transaction; fewer when they are large, or written a lot to
                 by others. What the function returns is patched into the document
        Raises   ValueError for a second one of that name
        """
        if batch < 1:
            raise ValueError(f"a batch has at least one document, not {batch}")

        def add(migrate: MigrateOne) -> MigrateOne:
            name = getattr(migrate, "__name__", repr(migrate))
            if name in self._migrations:
                raise ValueError(f"there is a migration {name!r} already: rename one")
            self._migrations[name] = _Migration(table, batch, migrate)
            return migrate

        return add

    async def start(
        self, ctx: MutationCtx, *names: str, reset: bool = False, count: bool = True
    ) -> None:
        """Begin migrations, one after the other, each when the one before is done.

        One that failed or was canceled goes on where it stopped; one that runs or is done stays as
        it is, and the next one's turn comes.

        Shapes   reset: begin anew. count: count the documents first, for `total`
        Raises   LookupError for a name that nothing was defined under
        """
        for name in names:
            self._defined(name)
        await self._start(ctx, list(names), reset=reset, count=count)

    async def status(self, ctx: QueryCtx, name: str) -> dict[str, Any] | None:
        """How far a migration is; None before it was started.

        Shapes   {"name", "table", "state": "counting", "running", "done", "failed" or "canceled",
                 "processed", "total": None while it is not known, "error", "startedAt", "endedAt"}
        """
        found = await self._stored(ctx, name)
        return None if found is None else _shown(found)

    async def statuses(self, ctx: QueryCtx) -> list[dict[str, Any]]:
        """As `status`, of every migration that was ever started, by name."""
        query = ctx.db.query(_TABLE).with_index(_BY_NAME)
        return [_shown(each) for each in await query.collect()]

    async def cancel(self, ctx: MutationCtx, name: str) -> bool:
        """Stop a migration, and what was to follow; False when it does not run."""
        found = await self._stored(ctx, name)
        if found is None or found["state"] not in _UNFINISHED:
            return False
        if found["job"] is not None:
            await ctx.scheduler.cancel(found["job"])
        ended: dict[str, Any] = {"state": "canceled", "job": None, "next": [], "endedAt": ctx.now}
        await ctx.db.patch(found["_id"], ended)
        return True

    async def dry_run(self, ctx: MutationCtx, name: str) -> DryRun:
        """Do the first batch, look at what became of it, and undo it.

        Raises   what the migration raises, with the document it was about
        """
        migration = self._defined(name)
        documents = await ctx.db.query(migration.table).take(migration.batch)
        samples: list[tuple[Document, Document | None]] = []
        changed = 0
        try:
            with ctx.db.savepoint():
                for document in documents:
                    await _migrate(ctx, migration, document)
                    after = await ctx.db.get(document["_id"])
                    if after == document:
                        continue
                    changed += 1
                    if len(samples) < _SAMPLES:
                        samples.append((document, after))
                raise _UndoError
        except _UndoError:
            return DryRun(len(documents), changed, samples)

    def _defined(self, name: str) -> _Migration:
        if name not in self._migrations:
            raise LookupError(f"there is no migration {name!r}: decorate a function with define")
        return self._migrations[name]

    async def _stored(self, ctx: QueryCtx, name: str) -> Document | None:
        return await ctx.db.query(_TABLE).with_index(_BY_NAME, name=name).unique()

    async def _start(self, ctx: MutationCtx, names: list[str], *, reset: bool, count: bool) -> None:
        for position, name in enumerate(names):
            migration = self._defined(name)
            found = await self._stored(ctx, name)
            following = names[position + 1 :]
            if found is not None and not reset and await self._is_alive(ctx, found):
                await ctx.db.patch(found["_id"], {"next": following})
                return
            if found is not None and not reset and found["state"] == "done":
                continue
            fresh = {
                "name": name,
                "table": migration.table,
                "state": "counting" if count else "running",
                "cursor": None,
                "processed": 0,
                "total": 0 if count else None,
                "startedAt": ctx.now,
            }
            begun: dict[str, Any] = {"error": None, "next": following, "endedAt": None}
            begun["job"] = await ctx.scheduler.run_after(timedelta(), self.function, migration=name)
            if found is None:
                await ctx.db.insert(_TABLE, {**fresh, **begun})
            elif reset:
                if found["state"] in _UNFINISHED and found["job"] is not None:
                    await ctx.scheduler.cancel(found["job"])
                await ctx.db.patch(found["_id"], {**fresh, **begun})
            else:
                # Where it stopped, also while it was counting.
                counting = found["total"] is not None and found["processed"] == 0
                state = "counting" if counting and found["cursor"] is not None else "running"
                await ctx.db.patch(found["_id"], {**begun, "state": state})
            return

    async def _is_alive(self, ctx: MutationCtx, found: Document) -> bool:
        """Whether a batch is to come. Not so when a version of the app without us ran meanwhile."""
        if found["state"] not in _UNFINISHED or found["job"] is None:
            return False
        job = await ctx.db.system.get(found["job"])
        return job is not None and job["state"]["kind"] in ("pending", "inProgress")

    async def _turn(self, ctx: MutationCtx, name: str) -> None:
        found = await self._stored(ctx, name)
        if found is None or found["state"] not in _UNFINISHED:
            return
        migration = self._migrations.get(name)
        if migration is None:
            error = f"the migration {name} is not defined any more"
            ended = {"state": "failed", "error": error, "endedAt": ctx.now, "job": None}
            await ctx.db.patch(found["_id"], ended)
        elif found["state"] == "counting":
            await self._count(ctx, found, migration)
        else:
            await self._batch(ctx, found, migration)

    async def _count(self, ctx: MutationCtx, found: Document, migration: _Migration) -> None:
        page = await ctx.db.query(migration.table).paginate(
            PaginationOpts(num_items=_COUNTED_AT_ONCE, cursor=found["cursor"])
        )
        total = found["total"] + len(page.page)
        cursor = None if page.is_done else page.continue_cursor
        changes: dict[str, Any] = {"total": total, "cursor": cursor}
        if page.is_done:
            changes["state"] = "running"
        await self._go_on(ctx, found, changes)

    async def _batch(self, ctx: MutationCtx, found: Document, migration: _Migration) -> None:
        page = await ctx.db.query(migration.table).paginate(
            PaginationOpts(num_items=migration.batch, cursor=found["cursor"])
        )
        try:
            with ctx.db.savepoint():
                for document in page.page:
                    await _migrate(ctx, migration, document)
        except _DocumentError as error:
            ended = {"state": "failed", "error": str(error), "endedAt": ctx.now, "job": None}
            await ctx.db.patch(found["_id"], ended)
            return
        processed = found["processed"] + len(page.page)
        changes = {"processed": processed, "cursor": page.continue_cursor}
        if not page.is_done:
            await self._go_on(ctx, found, changes)
            return
        ended = {"state": "done", "endedAt": ctx.now, "job": None, "next": []}
        if found["total"] is not None:
            ended["total"] = processed  # others came or went meanwhile
        await ctx.db.patch(found["_id"], {**changes, **ended})
        known = [each for each in found["next"] if each in self._migrations]
        await self._start(ctx, known, reset=False, count=found["total"] is not None)

    async def _go_on(self, ctx: MutationCtx, found: Document, changes: dict[str, Any]) -> None:
        changes["job"] = await ctx.scheduler.run_after(
            timedelta(), self.function, migration=found["name"]
        )
        await ctx.db.patch(found["_id"], changes)


async def _migrate(ctx: MutationCtx, migration: _Migration, document: Document) -> None:
    try:
        changes = await migration.migrate(ctx, document)
        if changes is not None:
            await ctx.db.patch(document["_id"], changes)
    except Exception as error:
        raise _DocumentError(
            f"{migration.table} {document['_id']}: {type(error).__name__}: {error}"
        ) from error


def _shown(stored: Document) -> dict[str, Any]:
    names = ("name", "table", "state", "processed", "total", "error", "startedAt", "endedAt")
    shown = {name: stored[name] for name in names}
    if stored["state"] == "counting":
        shown["total"] = None
    return shown
