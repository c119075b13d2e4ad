"""One table: what ran, and when."""

from reactive_store import define_schema, define_table, v

schema = define_schema({"effects": define_table({"number": v.number(), "at": v.number()})})
