"""Personas: the generated people of an experiment's panel."""

from __future__ import annotations

from functions._access import get_own, missing
from functions._ids import ExperimentId
from functions._questions import PersonaDraft
from reactive_store import (
    UNSET,
    Document,
    MutationCtx,
    QueryCtx,
    internal_mutation,
    query,
)

__all__ = ["create", "list_by_experiment"]


@query
async def list_by_experiment(ctx: QueryCtx, experiment_id: ExperimentId) -> list[Document]:
    """The panel of one of the caller's experiments, in the order it was made."""
    if await get_own(ctx, experiment_id) is None:
        return []
    panel = ctx.db.query("personas").with_index("by_experiment", experimentId=experiment_id)
    return await panel.collect()


@internal_mutation
async def create(
    ctx: MutationCtx,
    experiment_id: ExperimentId,
    archetype_id: str,
    count: int,
    drafts: list[PersonaDraft],
) -> list[Document]:
    """Fill the places of one archetype, of which there are `count`; all personas that hold one.

    Places that are taken already stay as they are, so filling them twice is harmless.
    """
    experiment = await ctx.db.get(experiment_id)
    if experiment is None:
        raise missing("experiment", experiment_id)
    panel = ctx.db.query("personas").with_index("by_experiment", experimentId=experiment_id)
    taken = [one for one in await panel.collect() if one["archetypeId"] == archetype_id]
    new_ids = []
    for draft in drafts[: count - len(taken)]:
        fields = {
            "userId": experiment["userId"],
            "experimentId": experiment_id,
            "archetypeId": archetype_id,
            "name": draft.name,
            "role": draft.role,
            "company": draft.company or UNSET,
            "background": draft.background,
            "beliefs": draft.beliefs,
            "preferences": draft.preferences,
            "decisionMakingStyle": draft.decisionMakingStyle or UNSET,
            "createdAt": ctx.now,
        }
        new_ids.append(await ctx.db.insert("personas", fields))
    if new_ids:
        await ctx.db.patch(
            experiment_id,
            {"personaIds": [*experiment["personaIds"], *new_ids], "updatedAt": ctx.now},
        )
    return [one for one in await panel.collect() if one["archetypeId"] == archetype_id]
