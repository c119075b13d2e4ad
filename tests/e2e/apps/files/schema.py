"""Files with names."""

from reactive_store import define_schema, define_table, v

schema = define_schema({"files": define_table({"storageId": v.id("_storage"), "name": v.string()})})
