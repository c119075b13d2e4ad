"""Messages: what was said in a conversation."""

from __future__ import annotations

from functions._access import get_own, load_own
from functions._ids import ConversationId, MessageId
from reactive_store import ConvexError, Document, MutationCtx, QueryCtx, mutation, query

__all__ = ["list_by_conversation", "send"]


@query
async def list_by_conversation(ctx: QueryCtx, conversation_id: ConversationId) -> list[Document]:
    """A conversation of the caller from its first message; empty when it is not theirs."""
    if await get_own(ctx, conversation_id) is None:
        return []
    said = ctx.db.query("messages").with_index("by_conversation", conversationId=conversation_id)
    return await said.collect()


@mutation
async def send(ctx: MutationCtx, conversation_id: ConversationId, content: str) -> MessageId:
    """Say something as the user."""
    await load_own(ctx, conversation_id, "conversation")
    if not content.strip():
        raise ConvexError({"code": "empty_message", "message": "A message needs some text."})
    await ctx.db.patch(conversation_id, {"updatedAt": ctx.now})
    fields = {
        "conversationId": conversation_id,
        "role": "user",
        "content": content,
        "createdAt": ctx.now,
    }
    return await ctx.db.insert("messages", fields)
