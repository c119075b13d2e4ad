"""Posts of about 600 bytes with three indexes, and small tables for the questions about races."""

from reactive_store import define_schema, define_table, v

schema = define_schema(
    {
        "posts": define_table(
            {
                "room": v.string(),
                "number": v.number(),
                "author": v.string(),
                "stars": v.number(),
                "body": v.string(),
                "tags": v.array(v.string()),
            }
        )
        .index("by_room", ["room"])
        .index("by_author", ["author", "stars"])
        .index("by_stars", ["stars"]),
        "counters": define_table({"name": v.string(), "value": v.number()}).index(
            "by_name", ["name"]
        ),
        "accounts": define_table({"balance": v.number()}),
        "results": define_table(
            {"experiment": v.string(), "number": v.number(), "text": v.string()}
        ).index("by_experiment", ["experiment"]),
        "readings": define_table({"sensor": v.number(), "text": v.string()}).index(
            "by_sensor", ["sensor"]
        ),
    }
)
