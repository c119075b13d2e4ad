"""Reminders that were delivered."""

from reactive_store import define_schema, define_table, v

schema = define_schema({"delivered": define_table({"owner": v.string(), "text": v.string()})})
