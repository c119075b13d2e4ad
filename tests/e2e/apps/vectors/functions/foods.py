"""The usual shape: an action searches, a query reads what was found."""

from typing import Any

from reactive_store import ActionCtx, Id, MutationCtx, QueryCtx, action, api, internal, mutation
from reactive_store import internal_query as hidden_query


@mutation
async def add(ctx: MutationCtx, foods: list[dict[str, Any]]) -> list[Id["foods"]]:
    return [await ctx.db.insert("foods", food) for food in foods]


@mutation
async def remove(ctx: MutationCtx, id: Id["foods"]) -> None:
    await ctx.db.delete(id)


@hidden_query
async def by_ids(ctx: QueryCtx, ids: list[Id["foods"]]):
    return [await ctx.db.get(each) for each in ids]


@action
async def similar(
    ctx: ActionCtx,
    vector: list[float],
    cuisines: list[str] | None = None,
    country: str | None = None,
    limit: int = 10,
):
    def condition(f):
        wanted = [f.eq("cuisine", cuisine) for cuisine in cuisines or []]
        if country is not None:
            wanted.append(f.eq("origin.country", country))
        return f.or_(*wanted)

    found = await ctx.vector_search(
        "foods",
        "by_embedding",
        vector=vector,
        limit=limit,
        filter=None if cuisines is None and country is None else condition,
    )
    foods = await ctx.run_query(internal.foods.by_ids, ids=[each["_id"] for each in found])
    return [
        {"name": food["name"], "score": each["_score"]}
        for food, each in zip(foods, found, strict=True)
        if food is not None  # deleted since
    ]


@action
async def add_and_find(ctx: ActionCtx, food: dict[str, Any]):
    """Its own write, found at once."""
    (made,) = await ctx.run_mutation(api.foods.add, foods=[food])
    found = await ctx.vector_search("foods", "by_embedding", vector=food["embedding"], limit=1)
    return {"made": made, "found": found}
