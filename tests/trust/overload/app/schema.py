"""Tables of the app that is attacked."""

from reactive_store import define_schema, define_table, v

schema = define_schema(
    {
        "rooms": define_table({"name": v.string(), "version": v.number()}).index(
            "by_name", ["name"]
        ),
        "texts": define_table({"owner": v.string(), "text": v.string()}).index(
            "by_owner", ["owner"]
        ),
    }
)
