"""Notes with embeddings of two usual lengths, and the same notes without an index."""

from reactive_store import define_schema, define_table, v

_FIELDS = {"topic": v.string(), "text": v.string(), "embedding": v.array(v.number())}

schema = define_schema(
    {
        "notes384": define_table(_FIELDS).vector_index(
            "by_embedding", vector_field="embedding", dimensions=384, filter_fields=["topic"]
        ),
        "notes1536": define_table(_FIELDS).vector_index(
            "by_embedding", vector_field="embedding", dimensions=1536, filter_fields=["topic"]
        ),
        "plain": define_table(_FIELDS),
    }
)
