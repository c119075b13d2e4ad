"""Foods with embeddings of three numbers."""

from reactive_store import define_schema, define_table, v

schema = define_schema(
    {
        "foods": define_table(
            {
                "name": v.string(),
                "cuisine": v.string(),
                "embedding": v.array(v.number()),
                "origin": v.optional(v.object({"country": v.string()})),
            }
        ).vector_index(
            "by_embedding",
            vector_field="embedding",
            dimensions=3,
            filter_fields=["cuisine", "origin.country"],
        )
    }
)
