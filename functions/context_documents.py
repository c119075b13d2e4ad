"""What a user uploaded for the personas to know about."""

from __future__ import annotations

from functions._access import get_own
from functions._ids import ProjectId
from reactive_store import Document, QueryCtx, query

__all__ = ["list_by_project"]


@query
async def list_by_project(ctx: QueryCtx, project_id: ProjectId) -> list[Document]:
    """The documents of one of the caller's projects, oldest first; empty when it is not theirs."""
    if await get_own(ctx, project_id) is None:
        return []
    below = ctx.db.query("contextDocuments").with_index("by_project", projectId=project_id)
    return await below.collect()
