"""What a fresh deployment starts with, so that its page is not empty."""

from __future__ import annotations

from functions._access import ensure_user
from reactive_store import Id, MutationCtx, internal, internal_mutation

__all__ = ["seed"]

_PROJECT = "Pricing study"


@internal_mutation
async def seed(ctx: MutationCtx) -> Id["projects"]:
    """The official templates and a first project of the caller; harmless to repeat."""
    await ctx.run_mutation(internal.experiment_templates.ensure_official)
    user = await ensure_user(ctx)
    own = await ctx.db.query("projects").with_index("by_user", userId=user["_id"]).collect()
    for project in own:
        if project["name"] == _PROJECT:
            return project["_id"]
    fields = {
        "userId": user["_id"],
        "name": _PROJECT,
        "description": "How would our customers take a new price?",
        "createdAt": ctx.now,
        "updatedAt": ctx.now,
    }
    return await ctx.db.insert("projects", fields)
