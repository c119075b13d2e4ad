"""Notes in folders, found by what they say."""

from reactive_store import define_schema, define_table, v

schema = define_schema(
    {
        "notes": define_table({"folder": v.string(), "text": v.string()}).search_index(
            "by_text", search_field="text", filter_fields=["folder"]
        ),
    }
)
