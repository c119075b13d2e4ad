"""A list in order of rank, and which way it is shown."""

from reactive_store import define_schema, define_table, v

schema = define_schema(
    {
        "items": define_table({"rank": v.number(), "odd": v.boolean()}).index("by_rank", ["rank"]),
        "settings": define_table({"newestFirst": v.boolean()}),
    }
)
