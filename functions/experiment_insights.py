"""Insights: what an experiment's answers mean together. Written once, at the end."""

from __future__ import annotations

from functions._access import get_own
from functions._ids import ExperimentId, InsightsId
from functions._questions import Insight
from functions._sentiment import SentimentBreakdown
from reactive_store import Document, MutationCtx, QueryCtx, internal_mutation, query

__all__ = ["get_by_experiment", "record"]


@query
async def get_by_experiment(ctx: QueryCtx, experiment_id: ExperimentId) -> Document | None:
    """The insights of one of the caller's experiments; None until they are written."""
    if await get_own(ctx, experiment_id) is None:
        return None
    return await _find(ctx, experiment_id)


@internal_mutation
async def record(
    ctx: MutationCtx,
    experiment_id: ExperimentId,
    insights: list[Insight],
    sentiment_breakdown: SentimentBreakdown,
    top_concerns: list[str],
    top_positives: list[str],
) -> InsightsId:
    """Keep the insights; what was written first stays."""
    existing = await _find(ctx, experiment_id)
    if existing is not None:
        first_id: InsightsId = existing["_id"]
        return first_id
    fields = {
        "experimentId": experiment_id,
        "insights": insights,
        "sentimentBreakdown": sentiment_breakdown,
        "topConcerns": top_concerns,
        "topPositives": top_positives,
        "createdAt": ctx.now,
    }
    return await ctx.db.insert("experimentInsights", fields)


async def _find(ctx: QueryCtx, experiment_id: ExperimentId) -> Document | None:
    found = ctx.db.query("experimentInsights").with_index(
        "by_experiment", experimentId=experiment_id
    )
    return await found.unique()
