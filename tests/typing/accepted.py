"""What an app's author writes, with the types a checker must see."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict, assert_type

from pydantic import BaseModel

from reactive_store import (
    UNSET,
    ActionCtx,
    CallOptions,
    ConvexError,
    Document,
    HttpRouter,
    Id,
    Identity,
    IdOf,
    Int64,
    JSONResponse,
    MutationCtx,
    PaginationOpts,
    QueryCtx,
    Request,
    Response,
    action,
    api,
    create_function_handle,
    define_schema,
    define_table,
    http_action,
    internal,
    internal_mutation,
    mutation,
    query,
    v,
)

schema = define_schema(
    {
        "notes": define_table({"text": v.string(), "owner": v.optional(v.id("users"))})
        .index("by_owner", ["owner"])
        .search_index("by_text", search_field="text"),
        "users": define_table(v.object({"name": v.string(), "age": v.nullable(v.number())})),
    }
)

NoteId = Annotated[Id, IdOf("notes")]


class Draft(BaseModel):
    text: str
    owner: Annotated[Id, IdOf("users")] | None = None


@dataclass
class Window:
    start: int
    end: int = 10


class Options(TypedDict, total=False):
    mode: Literal["fast", "slow"]


@query
async def list_all(ctx: QueryCtx, limit: int = 100) -> list[Document]:
    notes = await ctx.db.query("notes").order("desc").take(limit)
    assert_type(notes, list[Document])
    return notes


@query
async def page(ctx: QueryCtx, pagination_opts: PaginationOpts) -> Any:
    return await ctx.db.query("notes").paginate(pagination_opts)


@query
async def first_page(ctx: QueryCtx) -> Any:
    return await ctx.db.query("notes").paginate(PaginationOpts(num_items=20, cursor=None))


@query
async def read(ctx: QueryCtx, note_id: NoteId, window: Window, options: Options) -> str:
    note = await ctx.db.get(note_id)
    assert_type(note, Document | None)
    if note is None:
        raise ConvexError({"code": "gone", "at": ctx.now})
    assert_type(note_id.table, str)
    return f"{note['text'][window.start : window.end]}{options.get('mode')}"


@query
async def mine(ctx: QueryCtx) -> int:
    identity = await ctx.auth.get_user_identity()
    assert_type(identity, Identity | None)
    notes = await list_all(ctx, limit=5)  # a function used as a plain helper keeps its types
    assert_type(notes, list[Document])
    return len(notes)


@mutation
async def add(ctx: MutationCtx, draft: Draft, count: Int64 | None = None) -> Id:
    key = await ctx.db.insert("notes", {"text": draft.text, "owner": draft.owner, "n": count})
    await ctx.db.patch(key, {"owner": UNSET})
    return key


@mutation(args={"note_id": v.id("notes"), "text": v.string()}, returns=v.null())
async def rename(ctx: MutationCtx, note_id: NoteId, text: str) -> None:
    await ctx.db.patch(note_id, {"text": text})


# A mutation may do with less than it is offered.
@internal_mutation
async def count(ctx: QueryCtx) -> int:
    return len(await ctx.db.query("notes").collect())


@action
async def work(ctx: ActionCtx, text: str) -> None:
    await ctx.run_mutation(api.notes.add, draft={"text": text})
    await ctx.run_mutation(internal.notes.count)
    await ctx.run_query(list_all, limit=1)
    await ctx.run_query("notes:listAll", limit=1)


http = HttpRouter()


@http.route("/notes", method="GET")
async def list_notes(ctx: ActionCtx, request: Request) -> Response:
    source = await ctx.meta.get_request_metadata()
    assert_type(source.ip, str | None)
    return JSONResponse(await ctx.run_query(api.notes.list_all))


@http_action
async def receive(ctx: ActionCtx, request: Request) -> Response:
    return Response(await request.body())


http.route(path_prefix="/hooks/", method="POST", handler=receive)


@mutation
async def counted(ctx: MutationCtx) -> int:
    await ctx.run_query(api.notes.list_all, CallOptions(use_stale_snapshot=True), owner=None)
    return (await ctx.meta.get_transaction_metrics()).documents_read.remaining


assert_type(create_function_handle(api.notes.list_all), str)
