"""What was asked for, and what has happened."""

from reactive_store import define_schema, define_table, v

schema = define_schema(
    {
        "asked": define_table({"key": v.string()}),
        "effects": define_table({"key": v.string()}),
    }
)
