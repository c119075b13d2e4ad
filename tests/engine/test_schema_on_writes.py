"""Every way to write a document is held against the schema, and a refused write leaves nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reactive_store.engine.database import Database
from reactive_store.engine.schema_change import apply_schema
from reactive_store.engine.transaction import Transaction
from reactive_store.errors import BadRequest
from reactive_store.schema.tables import define_schema, define_table
from reactive_store.schema.validators import v
from reactive_store.values.document import Document
from reactive_store.values.ids import decode_id
from reactive_store.values.value import UNSET

SCHEMA = define_schema({"notes": define_table({"n": v.number()}).index("by_n", ["n"])})

Write = Callable[[Transaction, bytes], object]
REFUSED: dict[str, Write] = {
    "insert": lambda transaction, _: transaction.insert("notes", {"n": "one"}),
    "patch": lambda transaction, stored: transaction.patch("notes", stored, {"n": "one"}),
    "patch with a field too many": lambda transaction, stored: transaction.patch(
        "notes", stored, {"x": 1}
    ),
    "patch that removes a field": lambda transaction, stored: transaction.patch(
        "notes", stored, {"n": UNSET}
    ),
    "replace": lambda transaction, stored: transaction.replace("notes", stored, {"n": "one"}),
    "replace without a field": lambda transaction, stored: transaction.replace("notes", stored, {}),
}


@pytest.mark.parametrize("write", REFUSED.values(), ids=REFUSED)
async def test_no_way_to_write_leads_around_the_schema(database: Database, write: Write) -> None:
    """V86."""
    await apply_schema(database, SCHEMA)
    transaction = database.begin_mutation()
    stored = decode_id(transaction.insert("notes", {"n": 1})).internal_id
    await database.commit(transaction)
    transaction = database.begin_mutation()
    with pytest.raises(BadRequest) as refused:
        write(transaction, stored)
    assert refused.value.code == "SchemaEnforcementError"
    assert list(transaction.staging) == []
    row = transaction.get("notes", stored)
    assert row is not None
    assert Document(row.value, "notes")["n"] == 1
