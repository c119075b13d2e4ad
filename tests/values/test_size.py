from __future__ import annotations

from typing import Any

import pytest

from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from reactive_store.values.ids import encode_id
from reactive_store.values.size import (
    check_document,
    check_document_size,
    check_value,
    document_size,
    format_size,
    size_of,
)
from reactive_store.values.value import UNSET, Id, Int64

LIMITS = Limits()


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (UNSET, 0), (None, 1), (True, 1), (1, 9), (1.5, 9), (Int64(1), 9), ("é", 4),
        (Id("abc", "t"), 5), (b"ab", 4), ([], 2), ([1, None], 12), ({}, 2), ({"ab": "x"}, 8),
    ],
)  # fmt: skip
def test_every_type_has_its_cost(value: Any, size: int) -> None:
    """V34."""
    assert size_of(value) == size


def test_a_document_costs_the_same_with_and_without_its_system_fields() -> None:
    """V35."""
    own = {"a": 1}
    whole = {"_id": encode_id(10001, bytes(16)), "_creationTime": 1.5, **own}
    assert document_size(own) == document_size(whole) == size_of(whole) == 74


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.50 KiB"), (2**20, "1 MiB"),
        (2**20 + 1, "1.00 MiB"), (1_572_864, "1.50 MiB"), (16 * 2**20, "16 MiB"),
        (3 * 2**30, "3 GiB"), (5000 * 2**40, "5000 TiB"),
    ],
)  # fmt: skip
def test_sizes_are_shown_in_powers_of_1024(size: int, text: str) -> None:
    """V39."""
    assert format_size(size) == text


def test_a_value_may_have_32_mib() -> None:
    """V36."""
    most = LIMITS.value_bytes - 2
    check_value("x" * most, LIMITS)
    with pytest.raises(BadRequest) as caught:
        check_value("x" * (most + 1), LIMITS)
    assert caught.value.code == "ValueTooLargeError"
    assert caught.value.message == "Value is too large (32.00 MiB > maximum size 32 MiB)"


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_a_value_may_have_64_levels() -> None:
    """V31."""
    check_value(nested(64), LIMITS)
    with pytest.raises(BadRequest) as caught:
        check_value(nested(65), LIMITS)
    assert caught.value.code == "TooNestedError"
    assert caught.value.message == (
        "Value is too nested (nested 65 levels deep > maximum nesting 64)"
    )


def test_a_document_may_have_16_levels_and_no_other_underscore_fields() -> None:
    """V28, V32."""
    check_document({"_id": "x", "_creationTime": 1, "a": nested(15), "b": {"_c": 1}}, LIMITS)
    with pytest.raises(BadRequest) as caught:
        check_document({"_b": 1, "_a": 1}, LIMITS)
    assert caught.value.code == "InvalidDocumentError"
    rule = "starts with an underscore, which is only allowed for system fields like '_id'"
    assert caught.value.message == (
        f"Document(value: {{_a: 1.0, _b: 1.0}}) isn't a valid document: "
        f"Field '_b' {rule}\n Field '_a' {rule}"
    )
    with pytest.raises(BadRequest) as caught:
        check_document({"a": nested(16)}, LIMITS)
    assert caught.value.message.endswith(
        "isn't a valid document: "
        "Document is too nested (nested 17 levels deep > maximum nesting 16)"
    )


def test_a_document_may_have_1_mib() -> None:
    """V36."""
    most = LIMITS.document_bytes - document_size({"a": ""})
    assert check_document_size({"a": "x" * most}, LIMITS) == 2**20
    with pytest.raises(BadRequest) as caught:
        check_document_size({"a": "x" * (most + 1)}, LIMITS)
    assert caught.value.code == "ValueTooLargeError"
    assert caught.value.message == "Value is too large (1.00 MiB > maximum size 1 MiB)"


@pytest.mark.parametrize(
    "document",
    [
        {"_id": "x" * 32, "_creationTime": 1.5, "a": "é", "b": "plain", "": None},
        {"_id": Id("x" * 32, "t"), "_creationTime": 1, "a": [1, {"b": "c"}], "b": Int64(3)},
    ],
)
def test_checking_a_document_tells_its_size(document: dict[str, Any]) -> None:
    assert check_document(document, LIMITS) == document_size(document)
