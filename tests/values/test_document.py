from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.values import document as document_module
from reactive_store.values.document import Document
from reactive_store.values.value import Id, normalize
from reactive_store.values.wire import dumps
from tests.values.strategies import field_names, values

FIELDS = {"_id": "j57x", "name": "Ann", "tags": ["a"], "meta": {"n": 1}}


@pytest.fixture
def doc() -> Document:
    return Document(dumps(FIELDS), "users")


def test_it_reads_like_a_dict(doc: Document) -> None:
    assert doc["name"] == "Ann"
    assert doc.get("name") == "Ann"
    assert doc.get("nope") is None
    assert doc.get("nope", 5) == 5
    assert "name" in doc
    assert "nope" not in doc
    assert len(doc) == 4
    assert list(doc) == sorted(FIELDS) == list(doc.keys())
    assert dict(doc) == FIELDS
    assert {**doc} == FIELDS
    assert dict(doc.items()) == FIELDS
    assert len(doc.values()) == 4
    with pytest.raises(KeyError, match="nope"):
        doc["nope"]


def test_its_id_knows_the_table(doc: Document) -> None:
    assert type(doc["_id"]) is Id
    assert doc["_id"].table == "users"


def test_it_equals_any_mapping_with_the_same_content(doc: Document) -> None:
    assert doc == FIELDS
    assert dict.__eq__(FIELDS, doc) is NotImplemented  # so Python asks the document
    assert doc == Document(b" " + doc.encoded, "other")
    assert doc != {**FIELDS, "name": "Bob"}
    assert doc != [1]
    with pytest.raises(TypeError):
        hash(doc)


def test_it_shows_its_content(doc: Document) -> None:
    assert repr(doc).startswith("Document({")
    assert "'name': 'Ann'" in repr(doc)


def test_it_merges_into_a_dict(doc: Document) -> None:
    assert doc | {"name": "Bob"} == {**FIELDS, "name": "Bob"}
    assert {"name": "Bob", "x": 1} | doc == {"x": 1, **FIELDS}
    assert type(doc | {}) is dict
    with pytest.raises(TypeError):
        doc | 5  # type: ignore[operator]
    with pytest.raises(TypeError):
        5 | doc  # type: ignore[operator]


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.__setitem__("a", 1),
        lambda d: d.__delitem__("name"),
        lambda d: d.update(a=1),
        lambda d: d.pop("name"),
        lambda d: d.setdefault("a", 1),
        lambda d: d.clear(),
        lambda d: d.popitem(),
    ],
)
def test_it_cannot_be_written_and_says_what_to_do(doc: Document, change: Any) -> None:
    with pytest.raises(TypeError, match=r"ctx\.db\.patch.*dict\(doc\)"):
        change(doc)


def test_it_has_no_other_attributes(doc: Document) -> None:
    with pytest.raises(AttributeError):
        doc.name = "x"  # type: ignore[attr-defined]


def test_nothing_is_decoded_until_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    monkeypatch.setattr(document_module, "loads", lambda data: decoded.append(data) or {"a": 1})
    doc = Document(b'{"a":1.0}', "t")
    assert dumps([doc, {"d": doc}]) == b'[{"a":1.0},{"d":{"a":1.0}}]'
    assert decoded == []
    assert doc["a"] == doc["a"] == 1
    assert decoded == [b'{"a":1.0}']


def test_looking_at_plain_fields_keeps_the_bytes() -> None:
    spaced = Document(b'{"a": 1, "b": [2]}', "t")
    assert spaced["a"] == 1
    assert spaced.encoded == b'{"a": 1, "b": [2]}'


def test_a_changed_list_shows_in_this_document_only(doc: Document) -> None:
    twin = Document(doc.encoded, "users")
    doc["tags"].append("b")
    assert doc["tags"] == ["a", "b"]
    assert dumps(doc) == dumps({**FIELDS, "tags": ["a", "b"]})
    assert doc.decode()["tags"] == ["a", "b"]
    assert twin == FIELDS
    assert dumps(twin) == dumps(FIELDS)


@pytest.mark.parametrize(
    "hand_out",
    [
        lambda d: d["meta"],
        lambda d: d.get("meta"),
        lambda d: dict(d)["meta"],
        lambda d: dict(d.items())["meta"],
        lambda d: next(v for v in d.values() if type(v) is dict),
        lambda d: {**d}["meta"],
    ],
)
def test_every_way_to_reach_inside_is_noticed(doc: Document, hand_out: Any) -> None:
    hand_out(doc)["n"] = 2
    assert dumps([doc]) == dumps([{**FIELDS, "meta": {"n": 2}}])


def test_normalising_gives_a_dict_of_ones_own(doc: Document) -> None:
    own = normalize(doc)
    assert type(own) is dict
    assert own == FIELDS
    assert type(own["_id"]) is Id
    own["tags"].append("b")
    assert doc == FIELDS


def test_copies_are_documents(doc: Document) -> None:
    for copied in (copy.copy(doc), copy.deepcopy(doc), pickle.loads(pickle.dumps(doc))):
        assert type(copied) is Document
        assert copied == doc
        assert copied.table == "users"
        assert copied["tags"] is not doc["tags"]


@given(st.dictionaries(field_names, values, max_size=5))
def test_a_document_is_what_it_was_made_of(fields: dict[str, Any]) -> None:
    doc = Document(dumps(fields), "t")
    assert dumps(dict(doc)) == dumps(fields) == dumps(doc)
    assert dumps(doc.decode()) == dumps(fields)
