"""Experiments: one stimulus, put to many personas at once.

draft → generating_personas → running → completed, or failed. A failed experiment can be run again:
who has answered is not asked again, so no answer is lost and none is there twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter

from functions._access import get_own, load_own, missing
from functions._archetypes import GENERAL_PANEL, Archetype, panel_size
from functions._ids import ExperimentId, ProjectId, TemplateId
from functions._questions import (
    Answer,
    PersonaDraft,
    Summary,
    ask,
    ask_for_answer,
    ask_for_personas,
    ask_for_summary,
)
from functions._sentiment import breakdown_of, most_frequent
from functions._simulation import simulated_chat
from functions.experiment_templates import find_template
from reactive_store import (
    UNSET,
    ActionCtx,
    ConvexError,
    Document,
    MutationCtx,
    QueryCtx,
    action,
    api,
    internal,
    internal_mutation,
    mutation,
    query,
)
from reactive_store.kit.chat import ChatProvider
from reactive_store.kit.claude import ClaudeChat

__all__ = [
    "begin",
    "complete",
    "create",
    "fail",
    "fail_interrupted",
    "get",
    "list_by_project",
    "mark_running",
    "run",
]

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

# How many questions are under way at once in one run.
_AT_ONCE = 4
# An action lives for ten minutes at most. What has not moved for longer is not running any more.
_STALLED_MS = 11 * 60 * 1000
_WORKING = ("generating_personas", "running")

_DRAFTS = TypeAdapter(list[PersonaDraft])
_ANSWER = TypeAdapter(Answer)
_SUMMARY = TypeAdapter(Summary)


@query
async def get(ctx: QueryCtx, experiment_id: ExperimentId) -> Document | None:
    """One of the caller's experiments; its status and counters are live."""
    return await get_own(ctx, experiment_id)


@query
async def list_by_project(ctx: QueryCtx, project_id: ProjectId) -> list[Document]:
    """The experiments of one of the caller's projects, newest first; empty when not theirs."""
    if await get_own(ctx, project_id) is None:
        return []
    below = ctx.db.query("experiments").with_index("by_project", projectId=project_id)
    return await below.order("desc").collect()


@mutation
async def create(
    ctx: MutationCtx,
    project_id: ProjectId,
    name: str,
    stimulus: str,
    description: str | None = None,
    template_id: TemplateId | None = None,
    archetypes: list[Archetype] | None = None,
    config: dict[str, Any] | None = None,
) -> ExperimentId:
    """A draft. Its panel is `archetypes`, or the template's, or a general one."""
    project = await load_own(ctx, project_id, "project")
    if not name.strip() or not stimulus.strip():
        raise ConvexError(
            {"code": "empty_experiment", "message": "An experiment needs a name and a stimulus."}
        )
    template = None
    if template_id is not None:
        template = await find_template(ctx, template_id)
        if template is None:
            raise missing("template", template_id)
        used = {"usageCount": template["usageCount"] + 1, "updatedAt": ctx.now}
        await ctx.db.patch(template_id, used)
    panel = archetypes or (GENERAL_PANEL if template is None else template["personaArchetypes"])
    fields = {
        "userId": project["userId"],
        "projectId": project_id,
        "name": name.strip(),
        "description": description or UNSET,
        "status": "draft",
        "templateId": template_id or UNSET,
        "templateName": UNSET if template is None else template["name"],
        "stimulus": stimulus.strip(),
        # The panel is copied: a template that changes later does not change this experiment.
        "config": {**(config or {}), "archetypes": panel},
        "personaIds": [],
        "contextDocIds": [],
        "totalPersonas": panel_size(panel),
        "completedPersonas": 0,
        "createdAt": ctx.now,
        "updatedAt": ctx.now,
    }
    return await ctx.db.insert("experiments", fields)


@action
async def run(ctx: ActionCtx, experiment_id: ExperimentId) -> dict[str, Any]:
    """Run one of the caller's experiments to its end; {"status", "answered", "missing"}.

    Every step is a mutation of its own, so whoever listens sees the panel form and the answers
    arrive. A persona that gives no answer is missing and harms nobody else.

    Raises   ConvexError with code "not_found", "already_running" or "already_completed"
    """
    plan = await ctx.run_mutation(internal.experiments.begin, experiment_id=experiment_id)
    try:
        config = plan["experiment"]["config"]
        chat: ChatProvider | None = ClaudeChat.from_env(ctx.env)
        if chat is None:
            chat = simulated_chat(config.get("simulator", {}), seed=experiment_id)
        try:
            return await _Run(ctx, chat, plan).work()
        finally:
            await chat.close()
    except BaseException as error:
        # Also when the server stops or the time is up: nobody should wait for a dead run.
        reason = str(error) or type(error).__name__
        await ctx.run_mutation(
            internal.experiments.fail, experiment_id=experiment_id, reason=reason
        )
        raise


@internal_mutation
async def begin(ctx: MutationCtx, experiment_id: ExperimentId) -> dict[str, Any]:
    """Claim an experiment for one run; what is there of it already.

    Only one of several callers gets it: the status is checked and changed in one transaction.
    """
    experiment = await load_own(ctx, experiment_id, "experiment")
    status = experiment["status"]
    stalled = ctx.now - experiment["updatedAt"] > _STALLED_MS
    if status == "completed" or (status in _WORKING and not stalled):
        code = "already_completed" if status == "completed" else "already_running"
        raise ConvexError(
            {
                "code": code,
                "message": f"The experiment is {code.replace('_', ' ')}.",
                "status": status,
            }
        )
    config = dict(experiment.get("config") or {})
    config.pop("error", None)
    config["provider"] = "claude" if ctx.env.get("ANTHROPIC_API_KEY") else "simulator"
    begun = {"status": "generating_personas", "config": config, "updatedAt": ctx.now}
    await ctx.db.patch(experiment_id, begun)
    below = {
        table: await ctx.db.query(table)
        .with_index("by_experiment", experimentId=experiment_id)
        .collect()
        for table in ("personas", "experimentResults")
    }
    return {
        "experiment": {**experiment, **begun},
        "personas": below["personas"],
        "answeredIds": [result["personaId"] for result in below["experimentResults"]],
        "startedAt": ctx.now,
    }


@internal_mutation
async def mark_running(ctx: MutationCtx, experiment_id: ExperimentId) -> None:
    """The panel stands; from here on answers come in."""
    await ctx.db.patch(experiment_id, {"status": "running", "updatedAt": ctx.now})


@internal_mutation
async def complete(
    ctx: MutationCtx, experiment_id: ExperimentId, started_at: float, summary: Summary
) -> None:
    """Write the insights and end the experiment, in one transaction."""
    results = (
        await ctx.db.query("experimentResults")
        .with_index("by_experiment", experimentId=experiment_id)
        .collect()
    )
    await ctx.run_mutation(
        internal.experiment_insights.record,
        experiment_id=experiment_id,
        insights=summary.insights,
        sentiment_breakdown=breakdown_of(results),
        top_concerns=summary.topConcerns,
        top_positives=summary.topPositives,
    )
    done = {
        "status": "completed",
        "executionTimeMs": ctx.now - started_at,
        "completedAt": ctx.now,
        "updatedAt": ctx.now,
    }
    await ctx.db.patch(experiment_id, done)


@internal_mutation
async def fail(ctx: MutationCtx, experiment_id: ExperimentId, reason: str) -> None:
    """End a run as failed and keep what it has; nothing happens to one that has ended."""
    experiment = await ctx.db.get(experiment_id)
    if experiment is not None and experiment["status"] in _WORKING:
        await _end_as_failed(ctx, experiment, reason)


@internal_mutation
async def fail_interrupted(ctx: MutationCtx, quiet_ms: float = _STALLED_MS) -> int:
    """End runs that have died with their server, of all users; how many.

    Units    quiet_ms: for how long nothing has happened in a run; 0 right after the start of the
             only server, when no run can be alive
    """
    ended = 0
    for status in _WORKING:
        working = ctx.db.query("experiments").with_index("by_status", status=status)
        for experiment in await working.collect():
            if ctx.now - experiment["updatedAt"] >= quiet_ms:
                await _end_as_failed(ctx, experiment, "The server stopped during the run.")
                ended += 1
    return ended


async def _end_as_failed(ctx: MutationCtx, experiment: Document, reason: str) -> None:
    config = {**(experiment.get("config") or {}), "error": reason}
    failed = {"status": "failed", "config": config, "updatedAt": ctx.now}
    await ctx.db.patch(experiment["_id"], failed)


class _Run:
    """One run of one experiment: who is asked what, and where the answers go."""

    def __init__(self, ctx: ActionCtx, chat: ChatProvider, plan: Mapping[str, Any]) -> None:
        self._ctx = ctx
        self._chat = chat
        self._experiment: Mapping[str, Any] = plan["experiment"]
        self._personas: list[Mapping[str, Any]] = plan["personas"]
        self._answered: set[str] = set(plan["answeredIds"])
        self._started_at: float = plan["startedAt"]
        self._turns = asyncio.Semaphore(_AT_ONCE)
        # Why a persona, or a whole archetype, is missing; the last reason is shown if all are.
        self._failures: list[str] = []

    async def work(self) -> dict[str, Any]:
        """Both phases and the end."""
        experiment_id = self._experiment["_id"]
        archetypes: list[Archetype] = self._experiment["config"]["archetypes"]
        groups = await asyncio.gather(*(self._gather_group(one) for one in archetypes))
        await self._ctx.run_mutation(internal.experiments.mark_running, experiment_id=experiment_id)
        panel = [persona for group in groups for persona in group]
        await asyncio.gather(
            *(self._hear(persona, place) for place, persona in enumerate(panel, start=1))
        )
        answered = len(self._answered)
        if answered == 0:
            reason = self._failures[-1] if self._failures else "There was nobody to ask."
            await self._ctx.run_mutation(
                internal.experiments.fail,
                experiment_id=experiment_id,
                reason=f"No persona answered. {reason}",
            )
        else:
            await self._ctx.run_mutation(
                internal.experiments.complete,
                experiment_id=experiment_id,
                started_at=self._started_at,
                summary=await self._summarize(),
            )
        return {
            "status": "completed" if answered else "failed",
            "answered": answered,
            "missing": self._experiment["totalPersonas"] - answered,
        }

    async def _gather_group(self, archetype: Archetype) -> list[Mapping[str, Any]]:
        """All personas of one archetype, invented as far as they are not there yet."""
        there = [one for one in self._personas if one["archetypeId"] == archetype["id"]]
        wanted = int(archetype["count"]) - len(there)
        if wanted <= 0:
            return there
        group = await self._attempt(self._invent(archetype, wanted), archetype["name"])
        return there if group is None else group

    async def _invent(self, archetype: Archetype, wanted: int) -> list[Mapping[str, Any]]:
        question = ask_for_personas(archetype, wanted, self._experiment["stimulus"])
        group: list[Mapping[str, Any]] = await self._ctx.run_mutation(
            internal.personas.create,
            experiment_id=self._experiment["_id"],
            archetype_id=archetype["id"],
            count=archetype["count"],
            drafts=await ask(self._chat, question, _DRAFTS),
        )
        return group

    async def _hear(self, persona: Mapping[str, Any], place: int) -> None:
        """Hear one persona, unless it has answered in an earlier run."""
        if persona["_id"] not in self._answered:
            await self._attempt(self._ask_persona(persona, place), persona["name"])

    async def _ask_persona(self, persona: Mapping[str, Any], place: int) -> None:
        question = ask_for_answer(persona, place, self._experiment["stimulus"])
        answer = await ask(self._chat, question, _ANSWER)
        await self._ctx.run_mutation(
            internal.experiment_results.record,
            persona_id=persona["_id"],
            response=answer.response,
            sentiment=answer.sentiment,
            key_points=answer.keyPoints,
        )
        self._answered.add(persona["_id"])

    async def _summarize(self) -> Summary:
        """What the answers mean together; counted instead of read when the provider has failed."""
        results: list[Mapping[str, Any]] = await self._ctx.run_query(
            api.experiment_results.list_by_experiment, experiment_id=self._experiment["_id"]
        )
        question = ask_for_summary(self._experiment["stimulus"], results)
        summary = await self._attempt(ask(self._chat, question, _SUMMARY), "summary")
        return summary or Summary(
            insights=[],
            topConcerns=most_frequent(results, "negative"),
            topPositives=most_frequent(results, "positive"),
        )

    async def _attempt(self, work: Awaitable[_T], who: str) -> _T | None:
        """The outcome when it is this one's turn, or None when there is none."""
        async with self._turns:
            try:
                return await work
            except Exception as error:  # noqa: BLE001 - one failure must not reach the others
                self._failures.append(str(error) or type(error).__name__)
                _log.warning("%s gave no answer: %s", who, self._failures[-1])
                return None
