"""What hypothesis draws values from, for the tests of values and schema."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from reactive_store.values.value import Int64

__all__ = ["field_names", "scalars", "values"]

field_names = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=6).filter(
    lambda name: not name.startswith("$")
)

scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(),
    st.sampled_from([0.0, -0.0, 1.0, float(2**53), float(2**60), 1e22, 5e-324]),
    st.integers(-(2**63), 2**63 - 1).map(Int64),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.binary(max_size=8),
)

values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(field_names, inner, max_size=4),
    max_leaves=12,
)
