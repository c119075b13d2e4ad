"""Tables of the app under fuzz: notes that belong to one user each, and room for anything."""

from reactive_store import define_schema, define_table, v

schema = define_schema(
    {
        "notes": define_table({"owner": v.string(), "text": v.string()}).index(
            "by_owner", ["owner"]
        ),
        "kept": define_table({"value": v.any()}),
    }
)
