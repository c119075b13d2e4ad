"""The offline stand-in for a language model: invents people and opinions without a network.

Its answers are labelled, varied, and always the same for one question of one experiment. An
archetype leans one way for one stimulus, so that a chart of the answers has a shape; nothing here
understands a word.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any, NotRequired, TypedDict

from functions._questions import read_brief
from reactive_store.kit.chat import ChatError, SimulatedChat

__all__ = ["Simulation", "simulated_chat"]

_LABEL = "[simulated]"

# Slow enough to watch: a panel of twelve takes about six seconds.
_THINKING_MS = [600.0, 2400.0]

# fmt: off
_FIRST = (
    "Ada", "Bela", "Chidi", "Dana", "Emre", "Farah", "Goran", "Hana", "Ines", "Jonas", "Kavya",
    "Leif", "Mira", "Nils", "Oona", "Pavel", "Quinn", "Rosa", "Selim", "Tova", "Umar", "Vera",
    "Wen", "Ximena", "Yara", "Zoran",
)
_LAST = (
    "Adler", "Brandt", "Castillo", "Dimitrov", "Eriksen", "Ferreira", "Grün", "Haddad", "Ibsen",
    "Jansen", "Kowalski", "Lindqvist", "Moreau", "Novak", "Okafor", "Petersen", "Quiroga",
    "Rossi", "Sato", "Tanaka", "Urban", "Vargas", "Weber", "Xu", "Yilmaz", "Zhang",
)
# fmt: on
_COMPANIES = (
    "Northwind Bakery",
    "Lumen Freight",
    "Atelier Kestrel",
    "Harbor Analytics",
    "Tallgrass Health",
    "Copperline Tools",
    "Juniper & Sons",
    "Polder Logistics",
)
_STYLES = (
    "decides fast and corrects later",
    "asks three colleagues first",
    "waits for numbers",
    "follows a checklist",
    "trusts people more than slides",
)
_BELIEFS = (
    "Simple beats complete.",
    "A price says how serious somebody is.",
    "Switching always costs more than planned.",
    "Good support is part of the product.",
    "Promises about the future are worth nothing.",
    "What is not measured is not managed.",
)
_PREFERENCES = (
    "clear terms on one page",
    "a trial before a contract",
    "talking to a person",
    "monthly billing",
    "references from the same industry",
    "being able to leave with all data",
)
_PRO = (
    ("clear value", "I can see within a minute what I would get out of it"),
    ("fits the budget", "It fits what I had put aside for something like this"),
    ("saves time", "It would save my people hours every week"),
    ("trustworthy", "It is stated plainly, and that earns some trust"),
    ("better support", "Knowing that somebody answers quickly is worth money to me"),
)
_CON = (
    ("price", "For what I use of it, that is simply a lot of money"),
    ("switching risk", "I have been burned by changes like this before"),
    ("missing proof", "I see claims, and I do not see evidence"),
    ("timing", "It comes at a moment when I have other worries"),
    ("unclear terms", "I would want to read the small print before I say yes"),
)
_OPENINGS = {
    1: ("I like this.", "Honestly, count me in.", "This speaks to me."),
    0: ("I am of two minds.", "Maybe.", "I can see both sides."),
    -1: ("I am not convinced.", "This worries me.", "No, not like this."),
}


class Simulation(TypedDict):
    """How the simulator behaves: the key `simulator` of an experiment's config.

    `delayMs` bounds an answer's time; `failing` lists places of the panel, counted from 1, that
    give no answer; `failingArchetypes` lists ids of archetypes for which nobody is found.
    """

    delayMs: NotRequired[list[float]]
    failing: NotRequired[list[int]]
    failingArchetypes: NotRequired[list[str]]


def simulated_chat(simulation: Simulation, seed: str) -> SimulatedChat:
    """The simulator as a chat provider; another seed invents other people."""
    low, high = simulation.get("delayMs", _THINKING_MS)

    def answer(_system: str, prompt: str, rng: random.Random) -> str:
        brief = read_brief(prompt)
        if _is_failing(brief, simulation):
            raise ChatError("Failure as configured.", reason="simulated", may_retry=False)
        return json.dumps(_WRITERS[brief["task"]](brief, rng), ensure_ascii=False)

    return SimulatedChat(answer, delay_ms=(low, high), seed=seed)


def _is_failing(brief: dict[str, Any], simulation: Simulation) -> bool:
    if brief["task"] == "answer":
        return brief["place"] in simulation.get("failing", [])
    if brief["task"] == "personas":
        return brief["archetype"]["id"] in simulation.get("failingArchetypes", [])
    return False


def _personas(brief: dict[str, Any], rng: random.Random) -> list[dict[str, Any]]:
    archetype = brief["archetype"]
    count = brief["count"]
    first = (
        [rng.choice(_FIRST) for _ in range(count)]
        if count > len(_FIRST)
        else rng.sample(_FIRST, count)
    )
    return [
        {
            "name": f"{given} {rng.choice(_LAST)}",
            "role": archetype["name"],
            "company": rng.choice(_COMPANIES),
            "background": (
                f"{_LABEL} {archetype['description']} "
                f"{given} has done this for {rng.randint(2, 25)} years."
            ),
            "beliefs": rng.sample(_BELIEFS, 2),
            "preferences": rng.sample(_PREFERENCES, 2),
            "decisionMakingStyle": rng.choice(_STYLES),
        }
        for given in first
    ]


def _answer(brief: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    persona = brief["persona"]
    leaning = random.Random(f"{persona['archetypeId']}\0{brief['stimulus']}")  # noqa: S311 - repeatable
    sentiment = max(-1.0, min(1.0, rng.gauss(leaning.uniform(-0.6, 0.6), 0.4)))
    side = 0 if abs(sentiment) < 0.25 else (1 if sentiment > 0 else -1)
    pros, cons = rng.sample(_PRO, 2), rng.sample(_CON, 2)
    points = {1: [*pros, cons[0]], 0: [pros[0], cons[0]], -1: [*cons, pros[0]]}[side]
    sentences = ". ".join(sentence for _, sentence in points[:2])
    wish = persona["preferences"][0] if persona["preferences"] else "a good reason"
    return {
        "response": (
            f"{_LABEL} {rng.choice(_OPENINGS[side])} {sentences}. What would help me most: {wish}."
        ),
        "sentiment": round(sentiment, 3),
        "keyPoints": [point for point, _ in points[:2]],
    }


def _summary(brief: dict[str, Any], _rng: random.Random) -> dict[str, Any]:
    answers = brief["answers"]
    points = {
        label: [
            point
            for point, _ in Counter(
                point
                for one in answers
                if one["sentimentLabel"] == label
                for point in one["keyPoints"]
            ).most_common(3)
        ]
        for label in ("negative", "positive")
    }
    by_archetype: dict[str, list[dict[str, Any]]] = {}
    for one in answers:
        by_archetype.setdefault(one["archetypeId"], []).append(one)
    means = {
        name: sum(one["sentiment"] for one in group) / len(group)
        for name, group in by_archetype.items()
    }
    warmest, coldest = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    concern = next(iter(points["negative"]), "no concern in particular")
    insights = [
        _insight(
            f"{_readable(warmest)} is the warmest group, mean {means[warmest]:+.2f}.",
            by_archetype[warmest],
            "Talk to this group first and use its words.",
        )
    ]
    if coldest != warmest:
        insights.append(
            _insight(
                f"{_readable(coldest)} is the hardest group, mean {means[coldest]:+.2f}.",
                by_archetype[coldest],
                f"Answer this before anything else: {concern}.",
            )
        )
    return {
        "insights": insights,
        "topConcerns": points["negative"],
        "topPositives": points["positive"],
    }


def _insight(text: str, group: list[dict[str, Any]], recommendation: str) -> dict[str, Any]:
    return {
        "insight": f"{_LABEL} {text}",
        "confidence": round(1 - 0.6 ** len(group), 2),
        "supportingEvidence": [
            f"{one['personaName']}: {', '.join(one['keyPoints'])}" for one in group[:3]
        ],
        "actionableRecommendation": recommendation,
    }


def _readable(archetype_id: str) -> str:
    return archetype_id.replace("_", " ").capitalize()


_WRITERS = {"personas": _personas, "answer": _answer, "summary": _summary}
