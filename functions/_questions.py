"""What a chat provider is asked, and how its answers are read.

Every question ends with a brief: one JSON object that says everything the answer may rest on. Every
answer is one JSON object or array; text around it is tolerated, other shapes are not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from functions._archetypes import Archetype
from reactive_store.kit.chat import ChatError, ChatProvider

__all__ = [
    "Answer",
    "Insight",
    "PersonaDraft",
    "Question",
    "Summary",
    "ask",
    "ask_for_answer",
    "ask_for_personas",
    "ask_for_summary",
    "read_brief",
]

_T = TypeVar("_T")
_BRIEF = "Brief:\n"
_ATTEMPTS = 2
_DECODER = json.JSONDecoder()


class PersonaDraft(BaseModel):
    """A person of the panel, before there is a row for them."""

    name: str
    role: str
    company: str | None = None
    background: str
    beliefs: list[str]
    preferences: list[str]
    decisionMakingStyle: str | None = None  # noqa: N815 - named like the field of the row


class Answer(BaseModel):
    """What one persona says; `sentiment` goes from -1 (against) to 1 (in favour)."""

    response: str
    sentiment: float
    keyPoints: list[str]  # noqa: N815 - named like the field of the row


class Insight(BaseModel):
    """Something learned from all answers together; `confidence` goes from 0 to 1."""

    insight: str
    confidence: float
    supportingEvidence: list[str]  # noqa: N815 - named like the field of the row
    actionableRecommendation: str  # noqa: N815 - named like the field of the row


class Summary(BaseModel):
    """What all answers mean together."""

    insights: list[Insight]
    topConcerns: list[str]  # noqa: N815 - named like the field of the row
    topPositives: list[str]  # noqa: N815 - named like the field of the row


@dataclass(frozen=True, slots=True)
class Question:
    """One question to a chat provider."""

    system: str
    instruction: str
    brief: Mapping[str, Any]

    @property
    def prompt(self) -> str:
        """The user's side of the question."""
        return f"{self.instruction}\n\n{_BRIEF}{json.dumps(self.brief, ensure_ascii=False)}"


def read_brief(prompt: str) -> dict[str, Any]:
    """The brief at the end of a prompt."""
    brief: dict[str, Any] = json.loads(prompt.rpartition(_BRIEF)[2])
    return brief


def ask_for_personas(archetype: Archetype, count: int, stimulus: str) -> Question:
    """Who are `count` people of this kind?"""
    return Question(
        system="You invent realistic, varied people for a research panel.",
        instruction=(
            f"Invent {count} different people of the archetype in the brief, as a JSON array. Each "
            "is an object with name, role, company (may be left out), background (two sentences), "
            "beliefs (2 to 4 short strings), preferences (2 to 4 short strings) and "
            "decisionMakingStyle. Do not let them react to the stimulus yet. Answer with the JSON "
            "only."
        ),
        brief={"task": "personas", "archetype": archetype, "count": count, "stimulus": stimulus},
    )


def ask_for_answer(persona: Mapping[str, Any], place: int, stimulus: str) -> Question:
    """What does this persona, in this place of the panel, say to the stimulus?"""
    told = ("name", "role", "company", "archetypeId", "background", "beliefs", "preferences")
    return Question(
        system=(
            f"You are {persona['name']}, {persona['role']}. {persona['background']} Stay in "
            "character; be concrete and honest, also when that is unwelcome."
        ),
        instruction=(
            "React to the stimulus in the brief in two to four sentences. Answer with one JSON "
            "object: response (your words), sentiment (a number from -1, against, to 1, in favour) "
            "and keyPoints (1 to 4 short strings). Answer with the JSON only."
        ),
        brief={
            "task": "answer",
            "place": place,
            "persona": {key: persona[key] for key in told if key in persona},
            "stimulus": stimulus,
        },
    )


def ask_for_summary(stimulus: str, results: Iterable[Mapping[str, Any]]) -> Question:
    """What do these answers mean together?"""
    told = ("personaName", "archetypeId", "response", "sentiment", "sentimentLabel", "keyPoints")
    return Question(
        system="You are a careful research analyst. You claim nothing the answers do not support.",
        instruction=(
            "Read the answers in the brief. Answer with one JSON object: insights (2 to 4 objects "
            "with insight, confidence from 0 to 1, supportingEvidence as short quotes with the "
            "speaker's name, actionableRecommendation), topConcerns and topPositives (up to 3 "
            "short strings each). Answer with the JSON only."
        ),
        brief={
            "task": "summary",
            "stimulus": stimulus,
            "answers": [{key: row[key] for key in told} for row in results],
        },
    )


async def ask(chat: ChatProvider, question: Question, shape: TypeAdapter[_T]) -> _T:
    """The provider's answer, read as `shape`; asked a second time when it cannot be read.

    Raises   ChatError, with reason "unreadable" when both answers have another shape
    """
    attempt = 1
    while True:
        text = await chat.reply(question.system, question.prompt)
        try:
            return shape.validate_python(_first_json(text))
        except ValueError as error:  # ValidationError is one of them
            if attempt == _ATTEMPTS:
                problem = error.title if isinstance(error, ValidationError) else "JSON"
                raise ChatError(
                    f"The answer is not a usable {problem}.", reason="unreadable", may_retry=True
                ) from error
        attempt += 1


def _first_json(text: str) -> Any:
    """The first JSON object or array in a text that may have prose or a code fence around it."""
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    if not starts:
        raise ValueError("There is no JSON in the answer.")
    value, _ = _DECODER.raw_decode(text, min(starts))
    return value
