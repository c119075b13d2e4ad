"""One table with three indexes and documents of about 600 bytes."""

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
    }
)
