"""Ids by table, spelled so that a type checker reads them too.

`Id["projects"]` means the same to the library; type checkers take the string for a type's name.
"""

from __future__ import annotations

from typing import Annotated

from reactive_store import Id, IdOf

__all__ = [
    "ConversationId",
    "ExperimentId",
    "InsightsId",
    "MessageId",
    "PersonaId",
    "ProjectId",
    "ResultId",
    "TemplateId",
    "UserId",
]

ConversationId = Annotated[Id, IdOf("conversations")]
ExperimentId = Annotated[Id, IdOf("experiments")]
InsightsId = Annotated[Id, IdOf("experimentInsights")]
MessageId = Annotated[Id, IdOf("messages")]
PersonaId = Annotated[Id, IdOf("personas")]
ProjectId = Annotated[Id, IdOf("projects")]
ResultId = Annotated[Id, IdOf("experimentResults")]
TemplateId = Annotated[Id, IdOf("experimentTemplates")]
UserId = Annotated[Id, IdOf("users")]
