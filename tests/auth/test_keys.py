"""Admin keys: stable for a secret, worthless without it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_store.auth.keys import SECRET_BYTES, AdminKeys

SECRET = bytes(range(SECRET_BYTES))
KEYS = AdminKeys("store", SECRET)


def test_a_key_names_its_instance_before_the_bar():
    name, bar, code = KEYS.issue().partition("|")
    assert (name, bar) == ("store", "|")
    assert bytes.fromhex(code)


def test_the_same_secret_gives_the_same_key():
    assert AdminKeys("store", SECRET).issue() == KEYS.issue()


def test_keys_of_another_secret_or_instance_are_refused():
    assert not KEYS.verify(AdminKeys("store", bytes(SECRET_BYTES)).issue())
    other = AdminKeys("shop", SECRET).issue()
    assert not KEYS.verify(other)
    assert not KEYS.verify("store|" + other.partition("|")[2])


@pytest.mark.parametrize("prefix", ["", "prod:", "dev:", "  "])
def test_a_deployment_type_before_the_name_is_decoration(prefix):
    assert KEYS.verify(prefix + KEYS.issue())


@pytest.mark.parametrize(
    "key", ["", "|", "store", "store|", "store|00", "stor\u00e9|01", "\ud800|x"]
)
def test_what_is_no_key_is_refused(key):
    assert not KEYS.verify(key)


@given(st.integers(0, len(KEYS.issue()) - 1), st.characters(codec="ascii"))
def test_one_changed_character_spoils_a_key(place, character):
    key = KEYS.issue()
    changed = key[:place] + character + key[place + 1 :]
    if changed.strip() != key and not changed.partition("|")[0].endswith(":store"):
        assert not KEYS.verify(changed)


@pytest.mark.parametrize(
    ("name", "secret"), [("a|b", SECRET), ("a:b", SECRET), ("", SECRET), ("store", b"short")]
)
def test_names_that_break_keys_and_short_secrets_are_refused(name, secret):
    with pytest.raises(ValueError, match=r"instance"):
        AdminKeys(name, secret)
