"""Unheard's flows on the real engine, in memory: projects, templates, runs that stream, access."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from reactive_store import ConvexError, internal
from reactive_store.functions.loader import load_app
from reactive_store.testing import TestBackend

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = load_app(ROOT).schema
INSTANT = {"delayMs": [0, 0]}

ARCHETYPES = [
    {
        "id": "angel",
        "name": "Angel investor",
        "count": 3,
        "description": "Invests early.",
        "characteristics": ["quick"],
    },
    {
        "id": "fund",
        "name": "Fund partner",
        "count": 2,
        "description": "Reads the numbers first.",
        "characteristics": ["careful"],
    },
]


@pytest.fixture
async def backend() -> AsyncIterator[TestBackend]:
    async with TestBackend(schema=SCHEMA, functions=ROOT / "functions") as started:
        yield started


class App:
    """What a page does, for one caller."""

    def __init__(self, caller: Any) -> None:
        self.caller = caller

    async def project(self, name: str = "Pricing") -> str:
        return await self.caller.mutation("projects:create", name=name)

    async def draft(self, project_id: str, **simulator: Any) -> str:
        return await self.caller.mutation(
            "experiments:create",
            projectId=project_id,
            name="Would you pay?",
            stimulus="It costs 49 EUR now.",
            archetypes=ARCHETYPES,
            config={"simulator": {**INSTANT, **simulator}},
        )

    async def run(self, experiment_id: str) -> dict[str, Any]:
        return await self.caller.action("experiments:run", experimentId=experiment_id)

    async def get(self, experiment_id: str) -> Any:
        return await self.caller.query("experiments:get", experimentId=experiment_id)

    async def results(self, experiment_id: str) -> list[Any]:
        return await self.caller.query(
            "experimentResults:listByExperiment", experimentId=experiment_id
        )

    async def personas(self, experiment_id: str) -> list[Any]:
        return await self.caller.query("personas:listByExperiment", experimentId=experiment_id)

    async def insights(self, experiment_id: str) -> Any:
        return await self.caller.query(
            "experimentInsights:getByExperiment", experimentId=experiment_id
        )


@pytest.fixture
def app(backend: TestBackend) -> App:
    return App(backend)


async def _code(call: Any) -> str:
    with pytest.raises(ConvexError) as caught:
        await call
    return caught.value.data["code"]


# Users and projects


async def test_anonymous_callers_share_one_user_made_by_the_first_mutation(backend, app):
    assert await backend.query("users:current") is None
    assert await backend.query("projects:list") == []
    project_id = await app.project()
    user = await backend.query("users:current")
    assert user["tokenIdentifier"] == "anonymous"
    assert (await backend.query("projects:get", projectId=project_id))["userId"] == user["_id"]
    assert await backend.mutation("users:ensure") == user["_id"]


async def test_an_identity_gets_a_user_of_its_own(backend):
    alice = backend.with_identity(subject="alice", email="alice@example.com", name="Alice")
    user_id = await alice.mutation("users:ensure")
    user = await alice.query("users:current")
    assert (user["_id"], user["email"], user["name"]) == (user_id, "alice@example.com", "Alice")
    assert await backend.query("users:current") is None


async def test_projects_are_listed_newest_first_and_can_be_renamed(backend, app):
    first, second = await app.project("First"), await app.project(" Second ")
    await backend.mutation("projects:rename", projectId=first, name="Renamed")
    listed = await backend.query("projects:list")
    assert [(one["_id"], one["name"]) for one in listed] == [(second, "Second"), (first, "Renamed")]


@pytest.mark.parametrize("name", ["", "   "])
async def test_a_project_needs_a_name(backend, app, name: str):
    assert await _code(app.project(name)) == "empty_name"
    project_id = await app.project()
    renaming = backend.mutation("projects:rename", projectId=project_id, name=name)
    assert await _code(renaming) == "empty_name"


async def test_removing_a_project_removes_all_below_it_and_nothing_else(backend, app):
    project_id, other_id = await app.project(), await app.project("Other")
    experiment_id, kept_id = await app.draft(project_id), await app.draft(other_id)
    for one in (experiment_id, kept_id):
        await app.run(one)
    conversation_id = await backend.mutation("conversations:create", projectId=project_id)
    await backend.mutation("messages:send", conversationId=conversation_id, content="Hi")
    await backend.mutation("projects:remove", projectId=project_id)
    assert [one["_id"] for one in await backend.query("projects:list")] == [other_id]
    assert await app.get(experiment_id) is None
    assert len(await app.results(kept_id)) == 5
    assert (await app.insights(kept_id)) is not None
    counts = await _count_rows(backend)
    assert counts == {
        "projects": 1,
        "experiments": 1,
        "personas": 5,
        "experimentResults": 5,
        "experimentInsights": 1,
        "conversations": 0,
        "messages": 0,
    }


async def _count_rows(backend: TestBackend) -> dict[str, int]:
    async def count(ctx: Any) -> dict[str, int]:
        tables = (
            "projects",
            "experiments",
            "personas",
            "experimentResults",
            "experimentInsights",
            "conversations",
            "messages",
        )
        return {table: len(await ctx.db.query(table).collect()) for table in tables}

    return await backend.run(count)


# Templates


async def test_official_templates_are_made_once_and_listed_for_everyone(backend):
    made = await backend.mutation(internal.experiment_templates.ensure_official)
    assert made == 2
    assert await backend.mutation(internal.experiment_templates.ensure_official) == 0
    listed = await backend.with_identity(subject="bob").query("experimentTemplates:list")
    assert [one["name"] for one in listed] == ["Pricing reactions", "Investor pitch reactions"]
    for template in listed:
        assert template["isOfficial"]
        assert sum(one["count"] for one in template["personaArchetypes"]) == 12
        assert len(template["personaArchetypes"]) == 3
        found = await backend.query("experimentTemplates:get", templateId=template["_id"])
        assert found == template


async def test_a_private_template_is_its_authors_alone(backend):
    await backend.mutation(internal.experiment_templates.ensure_official)
    alice, bob = (backend.with_identity(subject=name) for name in ("alice", "bob"))
    author_id = await alice.mutation("users:ensure")
    await bob.mutation("users:ensure")

    async def publish(ctx: Any) -> str:
        official = await ctx.db.query("experimentTemplates").first()
        fields = {key: value for key, value in official.items() if not key.startswith("_")}
        private = {"name": "Mine", "isOfficial": False, "authorId": author_id}
        return await ctx.db.insert("experimentTemplates", {**fields, **private})

    template_id = await backend.run(publish)
    assert [one["name"] for one in await alice.query("experimentTemplates:list")][-1] == "Mine"
    assert "Mine" not in [one["name"] for one in await bob.query("experimentTemplates:list")]
    assert await bob.query("experimentTemplates:get", templateId=template_id) is None
    project_id = await App(bob).project()
    creating = bob.mutation(
        "experiments:create", projectId=project_id, name="x", stimulus="y", templateId=template_id
    )
    assert await _code(creating) == "not_found"


async def test_an_experiment_copies_its_templates_panel_and_counts_as_use(backend, app):
    await backend.mutation(internal.experiment_templates.ensure_official)
    template = (await backend.query("experimentTemplates:list"))[0]
    experiment_id = await backend.mutation(
        "experiments:create",
        projectId=await app.project(),
        name="Copy",
        stimulus="Dearer",
        templateId=template["_id"],
    )
    experiment = await app.get(experiment_id)
    assert experiment["templateName"] == template["name"]
    assert experiment["config"]["archetypes"] == template["personaArchetypes"]
    assert experiment["totalPersonas"] == 12
    used = await backend.query("experimentTemplates:get", templateId=template["_id"])
    assert used["usageCount"] == template["usageCount"] + 1


async def test_the_demo_seeds_once(backend):
    first = await backend.mutation(internal.demo.seed)
    assert await backend.mutation(internal.demo.seed) == first
    assert [one["name"] for one in await backend.query("projects:list")] == ["Pricing study"]
    assert len(await backend.query("experimentTemplates:list")) == 2


# Drafts


async def test_a_draft_waits_with_counters_at_zero(app):
    experiment = await app.get(await app.draft(await app.project()))
    assert experiment["status"] == "draft"
    assert (experiment["completedPersonas"], experiment["totalPersonas"]) == (0, 5)
    assert experiment["personaIds"] == []
    assert "executionTimeMs" not in experiment
    assert "completedAt" not in experiment


async def test_without_template_or_archetypes_a_general_panel_answers(backend, app):
    experiment_id = await backend.mutation(
        "experiments:create",
        projectId=await app.project(),
        name="General",
        stimulus="Soup",
        config={"simulator": INSTANT},
    )
    assert (await app.run(experiment_id)) == {"status": "completed", "answered": 6, "missing": 0}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": " "}, "empty_experiment"),
        ({"stimulus": ""}, "empty_experiment"),
        ({"archetypes": [ARCHETYPES[0], ARCHETYPES[0]]}, "bad_panel"),
        ({"archetypes": [{**ARCHETYPES[0], "count": 0}]}, "bad_panel"),
        ({"archetypes": [{**ARCHETYPES[0], "count": 101}]}, "bad_panel"),
    ],
)
async def test_a_draft_that_makes_no_sense_is_refused(backend, app, changes, code: str):
    project_id = await app.project()
    fields = {"projectId": project_id, "name": "n", "stimulus": "s", **changes}
    assert await _code(backend.mutation("experiments:create", **fields)) == code
    assert await backend.query("experiments:listByProject", projectId=project_id) == []


async def test_experiments_of_a_project_are_listed_newest_first(backend, app):
    project_id = await app.project()
    made = [await app.draft(project_id) for _ in range(3)]
    listed = await backend.query("experiments:listByProject", projectId=project_id)
    assert [one["_id"] for one in listed] == made[::-1]


# Runs


async def test_a_run_ends_completed_with_every_answer_counted_once(app):
    experiment_id = await app.draft(await app.project())
    assert await app.run(experiment_id) == {"status": "completed", "answered": 5, "missing": 0}
    experiment, results = await app.get(experiment_id), await app.results(experiment_id)
    personas = await app.personas(experiment_id)
    assert experiment["status"] == "completed"
    assert experiment["completedPersonas"] == experiment["totalPersonas"] == len(results) == 5
    assert experiment["executionTimeMs"] >= 0
    assert experiment["completedAt"] == experiment["updatedAt"]
    assert experiment["config"]["provider"] == "simulator"
    assert sorted(experiment["personaIds"]) == sorted(one["_id"] for one in personas)
    assert {one["personaId"] for one in results} == {one["_id"] for one in personas}
    kinds = [one["archetypeId"] for one in personas]
    assert (kinds.count("angel"), kinds.count("fund")) == (3, 2)
    for result in results:
        assert result["response"].startswith("[simulated]")
        assert -1 <= result["sentiment"] <= 1
        assert result["keyPoints"]


async def test_insights_sum_up_the_answers_and_are_written_once(backend, app):
    experiment_id = await app.draft(await app.project())
    assert await app.insights(experiment_id) is None
    await app.run(experiment_id)
    insights, results = await app.insights(experiment_id), await app.results(experiment_id)
    labels = [one["sentimentLabel"] for one in results]
    breakdown = insights["sentimentBreakdown"]
    assert {key: breakdown[key] for key in ("positive", "neutral", "negative")} == {
        label: labels.count(label) for label in ("positive", "neutral", "negative")
    }
    assert breakdown["average"] == pytest.approx(
        sum(one["sentiment"] for one in results) / 5, abs=1e-4
    )
    for insight in insights["insights"]:
        assert 0 < insight["confidence"] <= 1
        assert insight["supportingEvidence"]
        assert insight["actionableRecommendation"]
    again = await backend.mutation(
        internal.experiment_insights.record,
        experimentId=experiment_id,
        insights=[],
        sentimentBreakdown={"positive": 0, "neutral": 0, "negative": 0, "average": 0},
        topConcerns=[],
        topPositives=[],
    )
    assert again == insights["_id"]
    assert await app.insights(experiment_id) == insights


async def test_answers_and_counter_stream_to_who_listens(backend, app):
    # Answers that take a moment: a listener may be told of several changes at once otherwise.
    experiment_id = await app.draft(await app.project(), delayMs=[10, 30])
    seen: list[tuple[str, int]] = []
    lengths: list[int] = []
    async with (
        backend.subscribe("experiments:get", experimentId=experiment_id) as live,
        backend.subscribe(
            "experimentResults:listByExperiment", experimentId=experiment_id
        ) as arriving,
    ):

        async def follow_experiment() -> None:
            while not seen or seen[-1][0] != "completed":
                experiment = await live.next()
                seen.append((experiment["status"], experiment["completedPersonas"]))

        async def follow_results() -> None:
            while not lengths or lengths[-1] < 5:
                lengths.append(len(await arriving.next()))

        async def start() -> None:
            while not seen or not lengths:
                await asyncio.sleep(0)
            await app.run(experiment_id)

        await asyncio.gather(follow_experiment(), follow_results(), start())
    statuses = list(dict.fromkeys(status for status, _ in seen))
    assert statuses == ["draft", "generating_personas", "running", "completed"]
    counts = [count for _, count in seen]
    assert counts == sorted(counts)
    assert counts[-1] == 5
    assert lengths[0] == 0
    assert lengths == sorted(set(lengths))
    assert len(lengths) > 3


async def test_one_failing_persona_harms_no_other(app):
    experiment_id = await app.draft(await app.project(), failing=[2])
    assert await app.run(experiment_id) == {"status": "completed", "answered": 4, "missing": 1}
    experiment, personas = await app.get(experiment_id), await app.personas(experiment_id)
    assert (experiment["status"], experiment["completedPersonas"]) == ("completed", 4)
    heard = {one["personaId"] for one in await app.results(experiment_id)}
    assert [one["_id"] in heard for one in personas] == [True, False, True, True, True]
    assert await app.insights(experiment_id) is not None


async def test_an_archetype_nobody_is_found_for_harms_no_other(app):
    experiment_id = await app.draft(await app.project(), failingArchetypes=["angel"])
    assert await app.run(experiment_id) == {"status": "completed", "answered": 2, "missing": 3}
    assert {one["archetypeId"] for one in await app.results(experiment_id)} == {"fund"}


async def test_when_all_personas_fail_the_experiment_fails_and_says_why(app):
    experiment_id = await app.draft(await app.project(), failing=[1, 2, 3, 4, 5])
    assert await app.run(experiment_id) == {"status": "failed", "answered": 0, "missing": 5}
    experiment = await app.get(experiment_id)
    assert experiment["status"] == "failed"
    assert experiment["config"]["error"] == "No persona answered. Failure as configured."
    assert "completedAt" not in experiment
    assert await app.insights(experiment_id) is None


@pytest.mark.parametrize(
    ("status", "code"),
    [("completed", "already_completed"), ("running", "already_running")],
)
async def test_an_experiment_runs_once(backend, app, status: str, code: str):
    experiment_id = await app.draft(await app.project())
    if status == "completed":
        await app.run(experiment_id)
    else:
        await backend.mutation(internal.experiments.begin, experimentId=experiment_id)
    before = await app.results(experiment_id)
    assert await _code(app.run(experiment_id)) == code
    assert await app.results(experiment_id) == before


async def test_of_two_runs_at_once_only_one_goes(app):
    experiment_id = await app.draft(await app.project())
    ends = await asyncio.gather(
        app.run(experiment_id), app.run(experiment_id), return_exceptions=True
    )
    assert sorted(type(end).__name__ for end in ends) == ["ConvexError", "dict"]
    assert len(await app.results(experiment_id)) == 5
    assert len(await app.personas(experiment_id)) == 5


async def test_a_run_that_raises_ends_failed(backend, app):
    experiment_id = await app.draft(await app.project(), delayMs=[5, 1])
    with pytest.raises(Exception, match="delay_ms"):
        await app.run(experiment_id)
    experiment = await app.get(experiment_id)
    assert experiment["status"] == "failed"
    assert "delay_ms" in experiment["config"]["error"]


async def _crash_after(backend: TestBackend, app: App, experiment_id: str, answers: int) -> None:
    """What is left when a run dies after some answers."""
    plan = await backend.mutation(internal.experiments.begin, experimentId=experiment_id)
    draft = {
        "name": "Ada Kern",
        "role": "Angel investor",
        "background": "Sold a bakery.",
        "beliefs": ["Bread matters."],
        "preferences": ["short answers"],
    }
    personas = await backend.mutation(
        internal.personas.create,
        experimentId=experiment_id,
        archetypeId="angel",
        count=3,
        drafts=[draft] * 3,
    )
    await backend.mutation(internal.experiments.mark_running, experimentId=experiment_id)
    assert plan["experiment"]["status"] == "generating_personas"
    for persona in personas[:answers]:
        await backend.mutation(
            internal.experiment_results.record,
            personaId=persona["_id"],
            response="Fine.",
            sentiment=0.5,
            keyPoints=["price"],
        )


async def test_a_crashed_run_keeps_its_answers_and_is_taken_up_without_duplicates(backend, app):
    experiment_id = await app.draft(await app.project())
    await _crash_after(backend, app, experiment_id, answers=2)
    await backend.mutation(internal.experiments.fail, experimentId=experiment_id, reason="crash")
    failed = await app.get(experiment_id)
    assert (failed["status"], failed["completedPersonas"]) == ("failed", 2)
    kept = await app.results(experiment_id)
    assert len(kept) == 2

    assert await app.run(experiment_id) == {"status": "completed", "answered": 5, "missing": 0}
    results, experiment = await app.results(experiment_id), await app.get(experiment_id)
    assert results[:2] == kept
    assert len({one["personaId"] for one in results}) == len(results) == 5
    assert experiment["completedPersonas"] == 5
    assert len(experiment["personaIds"]) == 5
    assert "error" not in experiment["config"]


async def test_a_run_that_died_without_a_word_can_be_taken_up_once_it_cannot_be_alive(backend, app):
    experiment_id = await app.draft(await app.project())
    await _crash_after(backend, app, experiment_id, answers=1)
    assert await _code(app.run(experiment_id)) == "already_running"

    async def age(ctx: Any) -> None:
        await ctx.db.patch(experiment_id, {"updatedAt": ctx.now - 12 * 60 * 1000})

    await backend.run(age)
    assert (await app.run(experiment_id))["status"] == "completed"
    assert (await app.get(experiment_id))["completedPersonas"] == 5


async def test_recording_an_answer_twice_keeps_the_first_and_counts_once(backend, app):
    experiment_id = await app.draft(await app.project())
    await _crash_after(backend, app, experiment_id, answers=1)
    (first,) = await app.results(experiment_id)
    again = await backend.mutation(
        internal.experiment_results.record,
        personaId=first["personaId"],
        response="Other words.",
        sentiment=-1,
        keyPoints=[],
    )
    assert again == first["_id"]
    assert await app.results(experiment_id) == [first]
    assert (await app.get(experiment_id))["completedPersonas"] == 1


@pytest.mark.parametrize(
    ("sentiment", "kept", "label"),
    [
        (3, 1, "positive"),
        (0.25, 0.25, "positive"),
        (0.24, 0.24, "neutral"),
        (-0.24, -0.24, "neutral"),
        (-0.25, -0.25, "negative"),
        (-7, -1, "negative"),
    ],
)
async def test_a_sentiment_is_bounded_and_labelled(backend, app, sentiment, kept, label):
    experiment_id = await app.draft(await app.project())
    await _crash_after(backend, app, experiment_id, answers=0)
    persona = (await app.personas(experiment_id))[0]
    await backend.mutation(
        internal.experiment_results.record,
        personaId=persona["_id"],
        response="…",
        sentiment=sentiment,
        keyPoints=[],
    )
    (result,) = await app.results(experiment_id)
    assert (result["sentiment"], result["sentimentLabel"]) == (kept, label)


async def test_a_failed_word_does_not_undo_a_completed_experiment(backend, app):
    experiment_id = await app.draft(await app.project())
    await app.run(experiment_id)
    await backend.mutation(internal.experiments.fail, experimentId=experiment_id, reason="late")
    assert (await app.get(experiment_id))["status"] == "completed"


async def test_runs_that_died_with_their_server_end_failed_when_the_demo_starts_again(backend, app):
    project_id = await app.project()
    dead_id, draft_id, done_id = [await app.draft(project_id) for _ in range(3)]
    await _crash_after(backend, app, dead_id, answers=2)
    await app.run(done_id)
    await backend.mutation(internal.demo.seed)
    dead = await app.get(dead_id)
    assert (dead["status"], dead["completedPersonas"]) == ("failed", 2)
    assert dead["config"]["error"] == "The server stopped during the run."
    assert (await app.get(draft_id))["status"] == "draft"
    assert (await app.get(done_id))["status"] == "completed"
    assert await app.run(dead_id) == {"status": "completed", "answered": 5, "missing": 0}


async def test_only_runs_that_have_been_quiet_for_long_count_as_interrupted(backend, app):
    experiment_id = await app.draft(await app.project())
    await _crash_after(backend, app, experiment_id, answers=1)
    assert await backend.mutation(internal.experiments.fail_interrupted) == 0
    assert (await app.get(experiment_id))["status"] == "running"
    assert await backend.mutation(internal.experiments.fail_interrupted, quietMs=0) == 1


# Conversations


async def test_messages_are_kept_in_the_order_they_were_said(backend, app):
    project_id = await app.project()
    conversation_id = await backend.mutation(
        "conversations:create", projectId=project_id, title="Prices"
    )
    for content in ("One", "Two"):
        await backend.mutation("messages:send", conversationId=conversation_id, content=content)
    said = await backend.query("messages:listByConversation", conversationId=conversation_id)
    assert [(one["role"], one["content"]) for one in said] == [("user", "One"), ("user", "Two")]
    (conversation,) = await backend.query("conversations:listByProject", projectId=project_id)
    assert (conversation["title"], conversation["isActive"]) == ("Prices", True)
    empty = backend.mutation("messages:send", conversationId=conversation_id, content=" ")
    assert await _code(empty) == "empty_message"


async def test_context_documents_are_listed_by_project(backend, app):
    project_id, other_id = await app.project(), await app.project("Other")
    assert await backend.query("contextDocuments:listByProject", projectId=project_id) == []
    assert await backend.query("contextDocuments:listByProject", projectId=other_id) == []


# Access


async def test_nobody_sees_or_changes_what_is_not_theirs(backend):
    alice, bob = (backend.with_identity(subject=name) for name in ("alice", "bob"))
    theirs = App(alice)
    project_id = await theirs.project()
    experiment_id = await theirs.draft(project_id)
    await theirs.run(experiment_id)
    conversation_id = await alice.mutation("conversations:create", projectId=project_id)
    await alice.mutation("messages:send", conversationId=conversation_id, content="Secret")
    await bob.mutation("users:ensure")

    for stranger in (bob, backend):
        assert await stranger.query("projects:list") == []
        for path in (
            "experiments:listByProject",
            "contextDocuments:listByProject",
            "conversations:listByProject",
        ):
            assert await stranger.query(path, projectId=project_id) == []
        for path in ("experimentResults:listByExperiment", "personas:listByExperiment"):
            assert await stranger.query(path, experimentId=experiment_id) == []
        for path in ("experiments:get", "experimentInsights:getByExperiment"):
            assert await stranger.query(path, experimentId=experiment_id) is None
        assert await stranger.query("projects:get", projectId=project_id) is None
        said = await stranger.query("messages:listByConversation", conversationId=conversation_id)
        assert said == []
        for call in (
            stranger.mutation("projects:rename", projectId=project_id, name="Mine"),
            stranger.mutation("projects:remove", projectId=project_id),
            stranger.mutation("experiments:create", projectId=project_id, name="n", stimulus="s"),
            stranger.action("experiments:run", experimentId=experiment_id),
            stranger.mutation("conversations:create", projectId=project_id),
            stranger.mutation("messages:send", conversationId=conversation_id, content="x"),
        ):
            assert await _code(call) == "not_found"

    assert (await alice.query("projects:get", projectId=project_id))["name"] == "Pricing"
    assert len(await theirs.results(experiment_id)) == 5


async def test_a_live_query_of_a_stranger_stays_empty(backend):
    alice, bob = (backend.with_identity(subject=name) for name in ("alice", "bob"))
    theirs = App(alice)
    experiment_id = await theirs.draft(await theirs.project())
    async with bob.subscribe(
        "experimentResults:listByExperiment", experimentId=experiment_id
    ) as live:
        assert await live.next() == []
        await theirs.run(experiment_id)
    assert await App(bob).results(experiment_id) == []


@pytest.mark.parametrize(
    "path",
    [
        "experiments:begin",
        "experiments:complete",
        "experiments:fail",
        "experiments:failInterrupted",
        "experiments:markRunning",
        "personas:create",
        "experimentResults:record",
        "experimentInsights:record",
        "experimentTemplates:ensureOfficial",
        "demo:seed",
    ],
)
def test_the_steps_of_a_run_are_not_public(path: str):
    module, name = path.split(":")
    definition = load_app(ROOT).functions[f"{module}.js:{name}"]
    assert definition.visibility == "internal"
