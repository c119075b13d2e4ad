"""The tables of Unheard: who asks, what was asked, who answered, and what it means.

A project belongs to one user; experiments, documents, decisions and conversations hang below it.
An experiment puts one stimulus to many generated personas; every answer is a row of
`experimentResults`, so a page that listens sees them arrive one by one.

Times are Unix milliseconds. Field names are camelCase because browser clients share them.

Source: Unheard's data model, version 3.0.
"""

from __future__ import annotations

from reactive_store import define_schema, define_table, v

__all__ = ["schema"]

schema = define_schema(
    {
        "users": define_table(
            {
                "email": v.string(),
                "name": v.optional(v.string()),
                "avatarUrl": v.optional(v.string()),
                "tokenIdentifier": v.string(),
                "preferences": v.optional(
                    v.object(
                        {
                            "theme": v.literals("light", "dark", "system"),
                            "defaultPersonaCount": v.number(),
                        }
                    )
                ),
                "createdAt": v.number(),
                "updatedAt": v.number(),
            }
        )
        .index("by_email", ["email"])
        .index("by_token", ["tokenIdentifier"]),
        "projects": define_table(
            {
                "userId": v.id("users"),
                "name": v.string(),
                "description": v.optional(v.string()),
                "createdAt": v.number(),
                "updatedAt": v.number(),
            }
        ).index("by_user", ["userId"]),
        "contextDocuments": define_table(
            {
                "userId": v.id("users"),
                "projectId": v.id("projects"),
                "filename": v.string(),
                "fileType": v.literals("csv", "pdf", "xlsx", "txt", "md"),
                "contentType": v.literals(
                    "customer_data", "investor_data", "product_data", "metrics", "general"
                ),
                # What was found in the columns of a csv or xlsx file.
                "schema": v.optional(
                    v.array(
                        v.object(
                            {
                                "columnName": v.string(),
                                "dataType": v.string(),
                                "sampleValues": v.array(v.string()),
                            }
                        )
                    )
                ),
                "rowCount": v.optional(v.number()),
                "storageId": v.id("_storage"),
                "summary": v.optional(v.string()),
                "tags": v.array(v.string()),
                "createdAt": v.number(),
                "updatedAt": v.number(),
            }
        )
        .index("by_user", ["userId"])
        .index("by_project", ["projectId"])
        .index("by_content_type", ["contentType"]),
        "experimentTemplates": define_table(
            {
                "name": v.string(),
                "description": v.string(),
                "icon": v.string(),
                "category": v.literals("investors", "product", "operations", "hiring", "custom"),
                "authorId": v.optional(v.id("users")),
                "authorName": v.string(),
                "isOfficial": v.boolean(),
                "defaultPersonaCount": v.number(),
                "defaultStimulus": v.string(),
                # The questions a page asks before the experiment is made.
                "configurationFlow": v.array(
                    v.object(
                        {
                            "id": v.string(),
                            "question": v.string(),
                            "type": v.literals("text", "number", "select", "textarea"),
                            "required": v.boolean(),
                            "options": v.optional(v.array(v.string())),
                            "placeholder": v.optional(v.string()),
                            "defaultValue": v.optional(v.any()),
                        }
                    )
                ),
                "personaArchetypes": v.array(
                    v.object(
                        {
                            "id": v.string(),
                            "name": v.string(),
                            "count": v.number(),
                            "description": v.string(),
                            "characteristics": v.array(v.string()),
                        }
                    )
                ),
                "analysisMetrics": v.optional(v.array(v.any())),
                "visualizationConfig": v.optional(v.array(v.any())),
                "usageCount": v.number(),
                "version": v.string(),
                "parentTemplateId": v.optional(v.id("experimentTemplates")),
                "createdAt": v.number(),
                "updatedAt": v.number(),
            }
        )
        .index("by_category", ["category"])
        .index("by_official", ["isOfficial"])
        .index("by_usage", ["usageCount"]),
        "decisions": define_table(
            {
                "userId": v.id("users"),
                "projectId": v.id("projects"),
                "title": v.string(),
                "status": v.literals("evaluating", "decided", "implemented"),
                "category": v.string(),
                "templateId": v.optional(v.id("experimentTemplates")),
                "context": v.optional(v.string()),
                "config": v.optional(v.any()),
                "decision": v.optional(
                    v.object(
                        {
                            "chosen": v.string(),
                            "rationale": v.string(),
                            "nextSteps": v.array(v.string()),
                        }
                    )
                ),
                "createdAt": v.number(),
                "updatedAt": v.number(),
            }
        )
        .index("by_user", ["userId"])
        .index("by_project", ["projectId"]),
        "experiments": define_table(
            {
                "userId": v.id("users"),
                "projectId": v.id("projects"),
                "decisionId": v.optional(v.id("decisions")),
                "name": v.string(),
                "description": v.optional(v.string()),
                "status": v.literals(
                    "draft", "generating_personas", "running", "completed", "failed"
                ),
                "templateId": v.optional(v.id("experimentTemplates")),
                "templateName": v.optional(v.string()),
                "stimulus": v.string(),
                "config": v.optional(v.any()),
                "personaIds": v.array(v.id("personas")),
                "contextDocIds": v.array(v.id("contextDocuments")),
                # How many are to answer, and how many have.
                "totalPersonas": v.number(),
                "completedPersonas": v.number(),
                "executionTimeMs": v.optional(v.number()),
                "createdAt": v.number(),
                "updatedAt": v.number(),
                "completedAt": v.optional(v.number()),
            }
        )
        .index("by_user", ["userId"])
        .index("by_project", ["projectId"])
        .index("by_status", ["status"])
        .index("by_decision", ["decisionId"]),
        "personas": define_table(
            {
                "userId": v.id("users"),
                "experimentId": v.id("experiments"),
                "name": v.string(),
                "role": v.string(),
                "company": v.optional(v.string()),
                "archetypeId": v.string(),
                "background": v.string(),
                "beliefs": v.array(v.string()),
                "preferences": v.array(v.string()),
                "decisionMakingStyle": v.optional(v.string()),
                "generatedFrom": v.optional(v.id("contextDocuments")),
                "createdAt": v.number(),
            }
        ).index("by_experiment", ["experimentId"]),
        "experimentResults": define_table(
            {
                "experimentId": v.id("experiments"),
                "personaId": v.id("personas"),
                "personaName": v.string(),
                "archetypeId": v.string(),
                "response": v.string(),
                "sentiment": v.number(),  # from -1 (against) to 1 (in favour)
                "sentimentLabel": v.literals("positive", "neutral", "negative"),
                "keyPoints": v.array(v.string()),
                "timestamp": v.number(),
            }
        )
        .index("by_experiment", ["experimentId"])
        .index("by_persona", ["personaId"]),
        "experimentInsights": define_table(
            {
                "experimentId": v.id("experiments"),
                "insights": v.array(
                    v.object(
                        {
                            "insight": v.string(),
                            "confidence": v.number(),
                            "supportingEvidence": v.array(v.string()),
                            "actionableRecommendation": v.string(),
                        }
                    )
                ),
                "sentimentBreakdown": v.object(
                    {
                        "positive": v.number(),
                        "neutral": v.number(),
                        "negative": v.number(),
                        "average": v.number(),
                    }
                ),
                "topConcerns": v.array(v.string()),
                "topPositives": v.array(v.string()),
                "createdAt": v.number(),
            }
        ).index("by_experiment", ["experimentId"]),
        "conversations": define_table(
            {
                "userId": v.id("users"),
                "projectId": v.id("projects"),
                "title": v.optional(v.string()),
                "isActive": v.boolean(),
                "relatedExperimentId": v.optional(v.id("experiments")),
                "relatedDecisionId": v.optional(v.id("decisions")),
                "createdAt": v.number(),
                "updatedAt": v.number(),
            }
        )
        .index("by_user", ["userId"])
        .index("by_project", ["projectId"]),
        "messages": define_table(
            {
                "conversationId": v.id("conversations"),
                "role": v.literals("user", "assistant", "system"),
                "content": v.string(),
                # What an assistant's message offers to start or to open.
                "suggestedTemplateId": v.optional(v.id("experimentTemplates")),
                "suggestedExperimentId": v.optional(v.id("experiments")),
                "createdAt": v.number(),
            }
        ).index("by_conversation", ["conversationId"]),
    }
)
