"""What the demo does when it starts: its page should not be empty, nor wait for the dead."""

from __future__ import annotations

from functions._access import ensure_user
from functions._ids import ProjectId
from reactive_store import MutationCtx, internal, internal_mutation

__all__ = ["seed"]

_PROJECT = "Pricing study"


@internal_mutation
async def seed(ctx: MutationCtx) -> ProjectId:
    """The official templates and a first project of the caller; harmless to repeat.

    Runs that were under way when the demo was last stopped end as failed.
    """
    await ctx.run_mutation(internal.experiments.fail_interrupted, quiet_ms=0)
    await ctx.run_mutation(internal.experiment_templates.ensure_official)
    user = await ensure_user(ctx)
    own = await ctx.db.query("projects").with_index("by_user", userId=user["_id"]).collect()
    for project in own:
        if project["name"] == _PROJECT:
            project_id: ProjectId = project["_id"]
            return project_id
    fields = {
        "userId": user["_id"],
        "name": _PROJECT,
        "description": "How would our customers take a new price?",
        "createdAt": ctx.now,
        "updatedAt": ctx.now,
    }
    return await ctx.db.insert("projects", fields)
