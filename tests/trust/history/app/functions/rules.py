"""Rules that hold in every state if every mutation is checked: each reads more than it writes.

`pauses` are turns of the loop between what is read and what is written, so that races happen.
"""

import asyncio
from typing import Any

from reactive_store import MutationCtx, QueryCtx, mutation, query

SEATS = 2


@mutation
async def prepare(ctx: MutationCtx, owners: list[str], wards: list[str]) -> None:
    """Everybody has 1,000 cents in each of two accounts; each ward two doctors on call."""
    for owner in owners:
        for table in ("checking", "savings"):
            await ctx.db.insert(table, {"owner": owner, "cents": 1000})
    for ward in wards:
        for name in ("a", "b"):
            await ctx.db.insert("doctors", {"ward": ward, "name": name, "onCall": True})


@mutation
async def transfer(
    ctx: MutationCtx, giver: str, taker: str, cents: float, pauses: list[float]
) -> None:
    """From one's checking account to another's savings account, or back when negative."""
    source = await ctx.db.query("checking").with_index("by_owner", owner=giver).unique()
    await _pause(pauses[0])
    target = await ctx.db.query("savings").with_index("by_owner", owner=taker).unique()
    assert source is not None
    assert target is not None
    await ctx.db.patch(source["_id"], {"cents": source["cents"] - cents})
    await _pause(pauses[1])
    await ctx.db.patch(target["_id"], {"cents": target["cents"] + cents})


@mutation
async def leave(ctx: MutationCtx, ward: str, name: str, pauses: list[float]) -> bool:
    """A doctor goes off call, if another one stays."""
    on_call = await _on_call(ctx, ward)
    await _pause(pauses[0])
    leaving = [doctor for doctor in on_call if doctor["name"] == name]
    if len(on_call) < 2 or not leaving:
        return False
    await ctx.db.patch(leaving[0]["_id"], {"onCall": False})
    await _pause(pauses[1])
    return True


@mutation
async def come(ctx: MutationCtx, ward: str, name: str, pauses: list[float]) -> bool:
    """A doctor is on call again."""
    resting = ctx.db.query("doctors").with_index("by_ward", ward=ward, onCall=False)
    await _pause(pauses[0])
    async for doctor in resting:
        if doctor["name"] == name:
            await ctx.db.patch(doctor["_id"], {"onCall": True})
            return True
    return False


@mutation
async def sit(ctx: MutationCtx, group: str, name: str, pauses: list[float]) -> bool:
    """Take a seat, if one is left and nobody of that name is there: both are phantoms."""
    seats = await ctx.db.query("seats").with_index("by_group", group=group).collect()
    await _pause(pauses[0])
    if len(seats) >= SEATS or any(seat["name"] == name for seat in seats):
        return False
    await ctx.db.insert("seats", {"group": group, "name": name})
    await _pause(pauses[1])
    return True


@mutation
async def stand_up(ctx: MutationCtx, group: str, name: str, pauses: list[float]) -> bool:
    """Leave a seat."""
    seat = await ctx.db.query("seats").with_index("by_group", group=group, name=name).first()
    await _pause(pauses[0])
    if seat is None:
        return False
    await ctx.db.delete(seat["_id"])
    return True


@query
async def checking_total(ctx: QueryCtx) -> float:
    return sum([account["cents"] async for account in ctx.db.query("checking")])


@query
async def savings_total(ctx: QueryCtx) -> float:
    return sum([account["cents"] async for account in ctx.db.query("savings")])


@query
async def total(ctx: QueryCtx) -> float:
    accounts = await ctx.db.query("checking").collect()
    await _pause(2)
    accounts += await ctx.db.query("savings").collect()
    return sum(account["cents"] for account in accounts)


@query
async def on_call(ctx: QueryCtx, wards: list[str]) -> list[float]:
    """How many are on call in each ward."""
    return [float(len(await _on_call(ctx, ward))) for ward in wards]


@query
async def seated(ctx: QueryCtx, group: str) -> list[str]:
    """Who sits there."""
    seats = await ctx.db.query("seats").with_index("by_group", group=group).collect()
    return [seat["name"] for seat in seats]


async def _on_call(ctx: QueryCtx, ward: str) -> list[Any]:
    return await ctx.db.query("doctors").with_index("by_ward", ward=ward, onCall=True).collect()


async def _pause(turns: float) -> None:
    for _ in range(int(turns)):
        await asyncio.sleep(0)
