"""One document per effect."""

from reactive_store import define_schema, define_table, v

schema = define_schema(
    {
        "effects": define_table(
            {
                "token": v.string(),
                "name": v.string(),
                "by": v.number(),
                "who": v.union(v.string(), v.null()),
            }
        )
        .index("by_name", ["name"])
        .index("by_token", ["token"])
    }
)
