"""Templates: ready-made questions with the panel that answers them."""

from __future__ import annotations

from functions._access import find_user
from functions._archetypes import OFFICIAL_TEMPLATES
from functions._ids import TemplateId
from reactive_store import Document, MutationCtx, QueryCtx, internal_mutation, query

__all__ = ["ensure_official", "get", "list"]

# The query below is called `list` on the wire, so the builtin has another name in this module.
_Documents = list[Document]


@query
async def list(ctx: QueryCtx) -> _Documents:  # noqa: A001 - named like projects.list
    """All official templates, then the caller's own."""
    official = (
        await ctx.db.query("experimentTemplates")
        .with_index("by_official", isOfficial=True)
        .collect()
    )
    user = await find_user(ctx)
    if user is None:
        return official
    made = ctx.db.query("experimentTemplates").with_index("by_official", isOfficial=False)
    return official + await made.filter(lambda f: f.field("authorId") == user["_id"]).collect()


@query
async def get(ctx: QueryCtx, template_id: TemplateId) -> Document | None:
    """A template that is official or the caller's own."""
    return await find_template(ctx, template_id)


@internal_mutation
async def ensure_official(ctx: MutationCtx) -> int:
    """Insert the official templates that are not there yet; how many were inserted."""
    official = ctx.db.query("experimentTemplates").with_index("by_official", isOfficial=True)
    known = {template["name"] for template in await official.collect()}
    new = [template for template in OFFICIAL_TEMPLATES if template["name"] not in known]
    for template in new:
        fields = {
            **template,
            "authorName": "Unheard",
            "isOfficial": True,
            "usageCount": 0,
            "createdAt": ctx.now,
            "updatedAt": ctx.now,
        }
        await ctx.db.insert("experimentTemplates", fields)
    return len(new)


async def find_template(ctx: QueryCtx, template_id: TemplateId) -> Document | None:
    """A template that is official or the caller's own."""
    template = await ctx.db.get(template_id)
    if template is None or template["isOfficial"]:
        return template
    user = await find_user(ctx)
    return template if user is not None and template.get("authorId") == user["_id"] else None
