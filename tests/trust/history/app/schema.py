"""Tables of the app whose histories are checked: two kinds of list, registers, and invariants."""

from reactive_store import define_schema, define_table, v

schema = define_schema(
    {
        # A list that is one document, found by an index.
        "lists": define_table({"key": v.string(), "elements": v.array(v.number())}).index(
            "by_key", ["key"]
        ),
        # A list that is a range of an index, a document per element.
        "elements": define_table(
            {"key": v.string(), "place": v.number(), "element": v.number()}
        ).index("by_key", ["key", "place"]),
        "registers": define_table({"key": v.string(), "value": v.number()}).index(
            "by_key", ["key"]
        ),
        # The sum over both tables never changes.
        "checking": define_table({"owner": v.string(), "cents": v.number()}).index(
            "by_owner", ["owner"]
        ),
        "savings": define_table({"owner": v.string(), "cents": v.number()}).index(
            "by_owner", ["owner"]
        ),
        # Of each ward somebody is on call.
        "doctors": define_table(
            {"ward": v.string(), "name": v.string(), "onCall": v.boolean()}
        ).index("by_ward", ["ward", "onCall"]),
        # No more than a few per group, and no name twice in one.
        "seats": define_table({"group": v.string(), "name": v.string()}).index(
            "by_group", ["group", "name"]
        ),
    }
)
