"""Tables of the app that the end-to-end tests run: one per thing a client can observe."""

from reactive_store import define_schema, define_table, v

schema = define_schema(
    {
        "messages": define_table(
            {"channel": v.string(), "author": v.string(), "body": v.string()}
        ).index("by_channel", ["channel"]),
        "counters": define_table({"name": v.string(), "value": v.number()}).index(
            "by_name", ["name"]
        ),
        # Two tables whose sum never changes, whatever is transferred between them.
        "checking": define_table({"owner": v.string(), "cents": v.number()}).index(
            "by_owner", ["owner"]
        ),
        "savings": define_table({"owner": v.string(), "cents": v.number()}).index(
            "by_owner", ["owner"]
        ),
        # What the kill test writes: every entry can be found by three indexes and by the table.
        "entries": define_table({"key": v.string(), "writer": v.string(), "rank": v.number()})
        .index("by_key", ["key"])
        .index("by_writer", ["writer", "rank"])
        .index("by_rank", ["rank"]),
        "writers": define_table({"name": v.string(), "written": v.number()}).index(
            "by_name", ["name"]
        ),
        "anything": define_table({"value": v.any()}),
    }
)
