"""Articles that can be searched, and the same articles without an index."""

from reactive_store import define_schema, define_table, v

_FIELDS = {"topic": v.string(), "text": v.string()}

schema = define_schema(
    {
        "articles": define_table(_FIELDS).search_index(
            "by_text", search_field="text", filter_fields=["topic"]
        ),
        "plain": define_table(_FIELDS),
    }
)
