"""The kinds of people a panel is made of, and the official templates that bring them along."""

from __future__ import annotations

from typing import Any, TypedDict

from reactive_store import ConvexError

__all__ = ["Archetype", "GENERAL_PANEL", "LARGEST_PANEL", "OFFICIAL_TEMPLATES", "panel_size"]

LARGEST_PANEL = 100


class Archetype(TypedDict):
    """One kind of people, and how many of them take part."""

    id: str
    name: str
    count: int
    description: str
    characteristics: list[str]


def panel_size(archetypes: list[Archetype]) -> int:
    """How many people take part.

    Raises   ConvexError with code "bad_panel"
    """
    ids = {archetype["id"] for archetype in archetypes}
    size = sum(archetype["count"] for archetype in archetypes)
    if len(ids) < len(archetypes):
        raise _bad_panel("Two archetypes have the same id.")
    if any(archetype["count"] < 1 for archetype in archetypes):
        raise _bad_panel("Every archetype needs at least one persona.")
    if not 1 <= size <= LARGEST_PANEL:
        raise _bad_panel(f"A panel has between 1 and {LARGEST_PANEL} personas, not {size}.")
    return size


def _bad_panel(message: str) -> ConvexError:
    return ConvexError({"code": "bad_panel", "message": message})


# Who answers when an experiment names neither a template nor archetypes.
GENERAL_PANEL: list[Archetype] = [
    {
        "id": "everyday",
        "name": "Everyday customer",
        "count": 6,
        "description": "Someone who would meet this in ordinary life and has no stake in it.",
        "characteristics": ["practical", "short of time", "compares with what they use today"],
    }
]

# Rows of `experimentTemplates`; times, author and usage are added when they are inserted.
OFFICIAL_TEMPLATES: list[dict[str, Any]] = [
    {
        "name": "Pricing reactions",
        "description": "How would customers of different sizes take a price change?",
        "icon": "tag",
        "category": "product",
        "defaultPersonaCount": 12,
        "defaultStimulus": (
            "From next quarter our analytics tool costs 49 EUR per seat and month instead of "
            "29 EUR. Dashboards, exports and the public API stay included; support now answers "
            "within four hours."
        ),
        "configurationFlow": [
            {
                "id": "change",
                "question": "What changes, and from when?",
                "type": "textarea",
                "required": True,
                "placeholder": "Old price, new price, what is included",
            },
            {
                "id": "focus",
                "question": "What do you want to learn?",
                "type": "select",
                "required": False,
                "options": ["Willingness to pay", "Risk of leaving", "Wording"],
                "defaultValue": "Willingness to pay",
            },
        ],
        "personaArchetypes": [
            {
                "id": "solo_founder",
                "name": "Solo founder",
                "count": 4,
                "description": "Runs a small company alone and pays every invoice personally.",
                "characteristics": ["watches cash", "values simplicity", "decides in a day"],
            },
            {
                "id": "team_lead",
                "name": "Team lead",
                "count": 4,
                "description": "Leads eight people and has a tool budget to defend.",
                "characteristics": ["needs a reason for the budget", "cares about adoption"],
            },
            {
                "id": "enterprise_buyer",
                "name": "Enterprise buyer",
                "count": 4,
                "description": "Buys for hundreds of seats and negotiates every contract.",
                "characteristics": ["asks for security papers", "wants predictable terms"],
            },
        ],
        "version": "1.0.0",
    },
    {
        "name": "Investor pitch reactions",
        "description": "What would investors of different temper say about a pitch?",
        "icon": "presentation",
        "category": "investors",
        "defaultPersonaCount": 12,
        "defaultStimulus": (
            "We turn support tickets into product decisions. 40 paying teams, 18 percent growth "
            "a month, 2.1 million EUR seed round to build the second product."
        ),
        "configurationFlow": [
            {
                "id": "pitch",
                "question": "What is the pitch?",
                "type": "textarea",
                "required": True,
                "placeholder": "Problem, traction, ask",
            },
            {
                "id": "round",
                "question": "Which round is it?",
                "type": "select",
                "required": True,
                "options": ["Pre-seed", "Seed", "Series A"],
                "defaultValue": "Seed",
            },
        ],
        "personaArchetypes": [
            {
                "id": "angel",
                "name": "Angel investor",
                "count": 4,
                "description": "A former founder who invests early and on conviction.",
                "characteristics": ["backs people", "quick", "likes bold bets"],
            },
            {
                "id": "growth_fund",
                "name": "Growth fund partner",
                "count": 4,
                "description": "Looks for proven unit economics before anything else.",
                "characteristics": ["reads the numbers first", "asks about retention"],
            },
            {
                "id": "corporate",
                "name": "Corporate investor",
                "count": 4,
                "description": "Invests for a large company that may become a customer.",
                "characteristics": ["strategic fit", "slow and careful", "fears lock-in"],
            },
        ],
        "version": "1.0.0",
    },
]
