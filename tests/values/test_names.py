from __future__ import annotations

from enum import Enum

import pytest

from reactive_store.errors import BadRequest
from reactive_store.values.names import (
    FIELD_NAMES,
    check_field_name,
    check_identifier,
    is_identifier,
)


class Field(str, Enum):  # noqa: UP042 - the older spelling hashes differently
    NAME = "name"


@pytest.mark.parametrize("name", ["", "a", "a b", "_x", "a$", "~", "1", "k" * 1024])
def test_printable_names_are_accepted_and_remembered(name: str) -> None:
    """V27."""
    assert check_field_name(name) == name
    assert FIELD_NAMES[name] is check_field_name(name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("$", "Field name $ starts with '$', which is reserved."),
        (
            "a\x1f",
            (
                "Field name a\x1f has invalid character '\x1f': "
                "Field names can only contain non-control ASCII characters"
            ),
        ),
        ("k" * 1025, "Field name is too long (1025 > maximum 1024)"),
        (5, "Convex object keys must be strings, found 5"),
        (None, "Convex object keys must be strings, found None"),
    ],
)
def test_other_names_are_refused_with_the_reason(name: object, text: str) -> None:
    """V27."""
    with pytest.raises(BadRequest) as caught:
        check_field_name(name)
    assert caught.value.message == text
    assert caught.value.code == "InvalidFieldName"


def test_a_string_enum_is_the_plain_string_it_stands_for() -> None:
    assert type(check_field_name(Field.NAME)) is str
    assert check_field_name(Field.NAME) == "name"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Identifier cannot be empty"),
        (
            "1abc",
            (
                "Invalid first character '1' in 1abc: "
                "Identifiers must start with an alphabetic character or underscore"
            ),
        ),
        (
            "éa",
            (
                "Invalid first character 'é' in éa: "
                "Identifiers must start with an alphabetic character or underscore"
            ),
        ),
        (
            "a b",
            (
                "Identifier a b has invalid character ' ': "
                "Identifiers can only contain alphanumeric characters or underscores"
            ),
        ),
        ("a" * 65, "Identifier is too long (65 > maximum 64)"),
        ("__", "Identifier __ cannot have exclusively underscores"),
    ],
)
def test_what_is_no_identifier_is_refused_with_the_reason(text: str, problem: str) -> None:
    """V29."""
    assert not is_identifier(text)
    with pytest.raises(BadRequest) as caught:
        check_identifier(text)
    assert caught.value.message == problem


@pytest.mark.parametrize("text", ["a", "_a", "A1_", "_1", "a" * 64])
def test_identifiers_are_letters_digits_and_underscores(text: str) -> None:
    """V29."""
    assert is_identifier(text)
    check_identifier(text)


@pytest.mark.parametrize("text", ["a\n", "a.b", "²", "a²"])
def test_nothing_else_passes_for_an_identifier(text: str) -> None:
    assert not is_identifier(text)
