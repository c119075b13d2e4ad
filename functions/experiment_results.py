"""Results: what each persona answered. One row per persona, written as it answers."""

from __future__ import annotations

from functions._access import get_own, missing
from functions._ids import ExperimentId, PersonaId, ResultId
from functions._sentiment import label_of
from reactive_store import Document, MutationCtx, QueryCtx, internal_mutation, query

__all__ = ["list_by_experiment", "record"]


@query
async def list_by_experiment(ctx: QueryCtx, experiment_id: ExperimentId) -> list[Document]:
    """The answers to one of the caller's experiments so far, in the order they came in."""
    if await get_own(ctx, experiment_id) is None:
        return []
    results = ctx.db.query("experimentResults").with_index(
        "by_experiment", experimentId=experiment_id
    )
    return await results.collect()


@internal_mutation
async def record(
    ctx: MutationCtx,
    persona_id: PersonaId,
    response: str,
    sentiment: float,
    key_points: list[str],
) -> ResultId:
    """Keep a persona's answer and count it, in one transaction.

    The first answer stays: recording another one for the same persona changes nothing.
    """
    recorded = ctx.db.query("experimentResults").with_index("by_persona", personaId=persona_id)
    existing = await recorded.first()
    if existing is not None:
        first_id: ResultId = existing["_id"]
        return first_id
    persona = await ctx.db.get(persona_id)
    experiment = None if persona is None else await ctx.db.get(persona["experimentId"])
    if persona is None or experiment is None:
        raise missing("persona", persona_id)
    strength = max(-1.0, min(1.0, sentiment))
    fields = {
        "experimentId": experiment["_id"],
        "personaId": persona_id,
        "personaName": persona["name"],
        "archetypeId": persona["archetypeId"],
        "response": response,
        "sentiment": strength,
        "sentimentLabel": label_of(strength),
        "keyPoints": key_points,
        "timestamp": ctx.now,
    }
    counted = {"completedPersonas": experiment["completedPersonas"] + 1, "updatedAt": ctx.now}
    await ctx.db.patch(experiment["_id"], counted)
    return await ctx.db.insert("experimentResults", fields)
