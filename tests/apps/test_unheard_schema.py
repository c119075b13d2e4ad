"""Unheard's tables, field by field and index by index, as its data model writes them down.

The expectation is a second spelling of the model, in a notation of this file: `?` after a field
makes it optional, `[…]` is an array, `@t` the id of table t, a set of words their union.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reactive_store.functions.loader import load_app

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = load_app(ROOT).schema

STAMPS = {"createdAt": "number", "updatedAt": "number"}

TABLES: dict[str, tuple[dict[str, Any], dict[str, list[str]]]] = {
    "users": (
        {
            "email": "string",
            "name?": "string",
            "avatarUrl?": "string",
            "tokenIdentifier": "string",
            "preferences?": {
                "theme": {"light", "dark", "system"},
                "defaultPersonaCount": "number",
            },
            **STAMPS,
        },
        {"by_email": ["email"], "by_token": ["tokenIdentifier"]},
    ),
    "projects": (
        {"userId": "@users", "name": "string", "description?": "string", **STAMPS},
        {"by_user": ["userId"]},
    ),
    "contextDocuments": (
        {
            "userId": "@users",
            "projectId": "@projects",
            "filename": "string",
            "fileType": {"csv", "pdf", "xlsx", "txt", "md"},
            "contentType": {
                "customer_data",
                "investor_data",
                "product_data",
                "metrics",
                "general",
            },
            "schema?": [{"columnName": "string", "dataType": "string", "sampleValues": ["string"]}],
            "rowCount?": "number",
            "storageId": "@_storage",
            "summary?": "string",
            "tags": ["string"],
            **STAMPS,
        },
        {
            "by_user": ["userId"],
            "by_project": ["projectId"],
            "by_content_type": ["contentType"],
        },
    ),
    "experimentTemplates": (
        {
            "name": "string",
            "description": "string",
            "icon": "string",
            "category": {"investors", "product", "operations", "hiring", "custom"},
            "authorId?": "@users",
            "authorName": "string",
            "isOfficial": "boolean",
            "defaultPersonaCount": "number",
            "defaultStimulus": "string",
            "configurationFlow": [
                {
                    "id": "string",
                    "question": "string",
                    "type": {"text", "number", "select", "textarea"},
                    "required": "boolean",
                    "options?": ["string"],
                    "placeholder?": "string",
                    "defaultValue?": "any",
                }
            ],
            "personaArchetypes": [
                {
                    "id": "string",
                    "name": "string",
                    "count": "number",
                    "description": "string",
                    "characteristics": ["string"],
                }
            ],
            "analysisMetrics?": ["any"],
            "visualizationConfig?": ["any"],
            "usageCount": "number",
            "version": "string",
            "parentTemplateId?": "@experimentTemplates",
            **STAMPS,
        },
        {
            "by_category": ["category"],
            "by_official": ["isOfficial"],
            "by_usage": ["usageCount"],
        },
    ),
    "decisions": (
        {
            "userId": "@users",
            "projectId": "@projects",
            "title": "string",
            "status": {"evaluating", "decided", "implemented"},
            "category": "string",
            "templateId?": "@experimentTemplates",
            "context?": "string",
            "config?": "any",
            "decision?": {"chosen": "string", "rationale": "string", "nextSteps": ["string"]},
            **STAMPS,
        },
        {"by_user": ["userId"], "by_project": ["projectId"]},
    ),
    "experiments": (
        {
            "userId": "@users",
            "projectId": "@projects",
            "decisionId?": "@decisions",
            "name": "string",
            "description?": "string",
            "status": {"draft", "generating_personas", "running", "completed", "failed"},
            "templateId?": "@experimentTemplates",
            "templateName?": "string",
            "stimulus": "string",
            "config?": "any",
            "personaIds": ["@personas"],
            "contextDocIds": ["@contextDocuments"],
            "totalPersonas": "number",
            "completedPersonas": "number",
            "executionTimeMs?": "number",
            "completedAt?": "number",
            **STAMPS,
        },
        {
            "by_user": ["userId"],
            "by_project": ["projectId"],
            "by_status": ["status"],
            "by_decision": ["decisionId"],
        },
    ),
    "personas": (
        {
            "userId": "@users",
            "experimentId": "@experiments",
            "name": "string",
            "role": "string",
            "company?": "string",
            "archetypeId": "string",
            "background": "string",
            "beliefs": ["string"],
            "preferences": ["string"],
            "decisionMakingStyle?": "string",
            "generatedFrom?": "@contextDocuments",
            "createdAt": "number",
        },
        {"by_experiment": ["experimentId"]},
    ),
    "experimentResults": (
        {
            "experimentId": "@experiments",
            "personaId": "@personas",
            "personaName": "string",
            "archetypeId": "string",
            "response": "string",
            "sentiment": "number",
            "sentimentLabel": {"positive", "neutral", "negative"},
            "keyPoints": ["string"],
            "timestamp": "number",
        },
        {"by_experiment": ["experimentId"], "by_persona": ["personaId"]},
    ),
    "experimentInsights": (
        {
            "experimentId": "@experiments",
            "insights": [
                {
                    "insight": "string",
                    "confidence": "number",
                    "supportingEvidence": ["string"],
                    "actionableRecommendation": "string",
                }
            ],
            "sentimentBreakdown": {
                "positive": "number",
                "neutral": "number",
                "negative": "number",
                "average": "number",
            },
            "topConcerns": ["string"],
            "topPositives": ["string"],
            "createdAt": "number",
        },
        {"by_experiment": ["experimentId"]},
    ),
    "conversations": (
        {
            "userId": "@users",
            "projectId": "@projects",
            "title?": "string",
            "isActive": "boolean",
            "relatedExperimentId?": "@experiments",
            "relatedDecisionId?": "@decisions",
            **STAMPS,
        },
        {"by_user": ["userId"], "by_project": ["projectId"]},
    ),
    "messages": (
        {
            "conversationId": "@conversations",
            "role": {"user", "assistant", "system"},
            "content": "string",
            "suggestedTemplateId?": "@experimentTemplates",
            "suggestedExperimentId?": "@experiments",
            "createdAt": "number",
        },
        {"by_conversation": ["conversationId"]},
    ),
}


def _expected(shape: Any) -> dict[str, Any]:
    """The official export form of a shape in this file's notation; unions are sorted."""
    if isinstance(shape, dict):
        return {
            "type": "object",
            "value": {
                name.removesuffix("?"): {
                    "fieldType": _expected(field),
                    "optional": name.endswith("?"),
                }
                for name, field in shape.items()
            },
        }
    if isinstance(shape, list):
        return {"type": "array", "value": _expected(shape[0])}
    if isinstance(shape, set):
        return {
            "type": "union",
            "value": [{"type": "literal", "value": word} for word in sorted(shape)],
        }
    if shape.startswith("@"):
        return {"type": "id", "tableName": shape[1:]}
    return {"type": shape}


def _sorted_unions(exported: Any) -> Any:
    if isinstance(exported, dict):
        inner = {key: _sorted_unions(value) for key, value in exported.items()}
        if inner.get("type") == "union":
            inner["value"] = sorted(inner["value"], key=lambda one: one["value"])
        return inner
    if isinstance(exported, list):
        return [_sorted_unions(one) for one in exported]
    return exported


def test_there_are_exactly_these_eleven_tables():
    assert set(SCHEMA.tables) == set(TABLES)
    assert len(TABLES) == 11


@pytest.mark.parametrize("name", TABLES)
def test_every_field_of_a_table_is_as_written(name: str):
    fields, _ = TABLES[name]
    assert _sorted_unions(SCHEMA.tables[name].document.to_json()) == _expected(fields)


@pytest.mark.parametrize("name", TABLES)
def test_every_index_of_a_table_is_as_written(name: str):
    _, indexes = TABLES[name]
    table = SCHEMA.tables[name]
    assert {key: list(index.fields) for key, index in table.indexes.items()} == indexes
    assert not table.search_indexes
    assert not table.vector_indexes


def test_documents_are_checked_and_table_names_are_strict():
    assert SCHEMA.schema_validation
    assert SCHEMA.strict_table_names
