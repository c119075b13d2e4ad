"""Identities: values that compare by content and read like the official ones."""

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.auth.identity import ANONYMOUS, Caller, Identity, RequestSource
from reactive_store.errors import BadRequest

ALICE = {"tokenIdentifier": "https://a.example|alice", "email": "a@example.com"}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


def test_attributes_are_snake_case_and_keys_are_camel_case():
    identity = Identity({**ALICE, "givenName": "Alice", "emailVerified": True})
    assert identity.given_name == identity["givenName"] == "Alice"
    assert identity.token_identifier == "https://a.example|alice"
    assert identity.email_verified is True


def test_an_absent_attribute_is_none_and_an_absent_key_names_itself():
    identity = Identity.from_attributes(ALICE)
    assert identity.name is None
    assert identity.get("name") is None
    with pytest.raises(KeyError, match="plan"):
        identity["plan"]


def test_an_unknown_attribute_points_at_the_key():
    with pytest.raises(AttributeError, match=r"identity\['plan'\]"):
        _ = Identity(ALICE).plan


@pytest.mark.parametrize(
    ("attributes", "key", "expected"),
    [
        ({"a": {"b": 1}}, "a.b", 1),
        ({"a": {"b": {"c": "x"}}}, "a.b.c", "x"),
        ({"a.b": 2}, "a.b", 2),
        ({"a.b": 2, "a.c.d": 3}, "a", {"b": 2, "c": {"d": 3}}),
        ({"a": {"b": 1}}, "a", {"b": 1}),
    ],
)
def test_nested_claims_are_read_nested_and_dotted(attributes, key, expected):
    assert Identity(attributes)[key] == expected


def test_a_dotted_key_that_leads_nowhere_is_missing():
    with pytest.raises(KeyError, match=r"a\.x"):
        Identity({"a": {"b": 1}})["a.x"]


def test_equal_content_is_one_identity_whatever_the_order():
    one = Identity({"subject": "s", "issuer": "i"})
    two = Identity({"issuer": "i", "subject": "s"})
    assert one == two
    assert hash(one) == hash(two)
    assert one == {"issuer": "i", "subject": "s"}
    assert one != Identity({"subject": "s"})
    assert {Caller(one): 1}[Caller(two)] == 1


def test_an_identity_cannot_be_changed():
    identity = Identity(ALICE)
    with pytest.raises(AttributeError):
        identity.email = "other"
    with pytest.raises(AttributeError):
        del identity.email
    identity.to_json()["email"] = "other"
    assert identity.email == "a@example.com"


def test_the_source_dict_stays_the_callers():
    source = {"subject": "s", "roles": ["admin"]}
    identity = Identity(source)
    source["roles"].append("owner")
    assert identity["roles"] == ["admin"]


def test_copies_and_pickles_are_equal():
    identity = Identity(ALICE)
    assert pickle.loads(pickle.dumps(identity)) == identity
    assert copy.deepcopy(identity) == identity


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=5))
def test_to_json_gives_back_what_went_in(attributes):
    identity = Identity(attributes)
    assert identity.to_json() == attributes
    assert dict(identity) == attributes
    assert len(identity) == len(attributes)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (
            {"issuer": "i", "subject": "s"},
            {"issuer": "i", "subject": "s", "tokenIdentifier": "i|s"},
        ),
        (
            {"tokenIdentifier": "https://i|s"},
            {"issuer": "https://i", "subject": "s", "tokenIdentifier": "https://i|s"},
        ),
        (
            {"issuer": "i", "subject": "s", "plan": "pro", "name": None},
            {"issuer": "i", "subject": "s", "tokenIdentifier": "i|s", "plan": "pro"},
        ),
    ],
)
def test_an_identity_to_act_as_is_completed(attributes, expected):
    assert Identity.from_attributes(attributes).to_json() == expected


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"subject": "s"},
        {"issuer": "i", "name": "x"},
        {"tokenIdentifier": 3},
        {"tokenIdentifier": "i|s", "emailVerified": "yes"},
        {"tokenIdentifier": "i|s", "name": ["x"]},
        {"tokenIdentifier": "i|s", "claim": object()},
    ],
)
def test_an_identity_that_is_nobody_is_refused(attributes):
    with pytest.raises(BadRequest) as refused:
        Identity.from_attributes(attributes)
    assert refused.value.code == "InvalidIdentity"


def test_nobody_is_no_admin():
    assert ANONYMOUS.identity is None
    assert ANONYMOUS.is_admin is False


def test_a_caller_that_is_logged_tells_no_token():
    caller = Caller(None, request=RequestSource("127.0.0.1", "curl", "1", "head.body.signature"))
    assert caller.request.auth_token == "head.body.signature"
    assert "body" not in repr(caller)


def test_an_attribute_nested_deeper_than_python_can_show_is_refused():
    nested = json.loads("[" * 900 + "]" * 900)
    for _ in range(900):
        nested = [nested]
    with pytest.raises(BadRequest, match="not a list") as refused:
        Identity.from_attributes({"tokenIdentifier": "i|s", "name": nested})
    assert refused.value.code == "InvalidIdentity"


def test_a_claim_nested_deeper_than_json_can_be_written_is_refused():
    nested: list = []
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(BadRequest) as refused:
        Identity.from_attributes({"tokenIdentifier": "i|s", "claim": nested})
    assert refused.value.code == "InvalidIdentity"
