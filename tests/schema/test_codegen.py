from __future__ import annotations

from reactive_store.schema.codegen import Source
from reactive_store.schema.validators import v


class Tables:
    def table_name(self, number: int) -> str | None:
        return None


def test_functions_and_constants_are_named_apart() -> None:
    source = Source()
    first = source.function(["return value == 1"])
    second = source.function([f"return value in {source.constant({2, 3})}"])
    test = source.compile(f"{first}(value, tables) or {second}(value, tables)")
    assert [test(n, Tables()) for n in (1, 2, 3, 4)] == [True, True, True, False]


def test_names_and_texts_are_data_in_the_generated_code() -> None:
    odd = '\'); raise SystemExit #\\\n"""'
    validator = v.object({"class": v.literal(odd), "value": v.any(), "item": v.any()})
    assert validator.matches({"class": odd, "item": 1, "value": 1}, Tables())
    assert not validator.matches({"class": odd[1:], "item": 1, "value": 1}, Tables())


def test_deep_validators_compile() -> None:
    validator = v.any()
    value: object = 1
    for _ in range(60):
        validator = v.object({"a": v.array(v.nullable(validator))})  # type: ignore[assignment]
        value = {"a": [value, None]}
    assert validator.matches(value, Tables())  # type: ignore[arg-type]
    assert not validator.matches({"a": [1]}, Tables())
