"""Which status and body each error becomes."""

import json
import logging

import pytest

from reactive_store import errors
from reactive_store.runtime import SystemRuntime
from reactive_store.server.errors import error_response, status_of

RUNTIME = SystemRuntime()

CASES = [
    (errors.BadRequest("m", code="C"), 400, "C"),
    (errors.ProtocolError("m"), 400, "WSMessageInvalidJson"),
    (errors.Unauthenticated("m"), 401, "Unauthenticated"),
    (errors.AuthUpdateFailed("m"), 401, "Unauthenticated"),
    (errors.Forbidden("m"), 403, "Forbidden"),
    (errors.NotFound("m"), 404, "NotFound"),
    (errors.Conflict("m"), 503, "OptimisticConcurrencyControlFailure"),
    (errors.OutOfRetention("m"), 503, "OutOfRetention"),
    (errors.Overloaded("m"), 429, "TooManyConcurrentRequests"),
    (errors.Overloaded("m", code="CommitterFullError"), 503, "CommitterFullError"),
    (errors.StoreFailed("m"), 500, "StoreFailed"),
    (errors.StoreError("m"), 500, "InternalServerError"),
]


@pytest.mark.parametrize(("error", "status", "code"), CASES)
def test_a_known_error_is_told(error, status, code):
    response = error_response(error, RUNTIME)
    assert response.status_code == status_of(error) == status
    assert response.media_type == "application/json"
    assert json.loads(response.body) == {"code": code, "message": "m"}


@pytest.mark.parametrize("error", [ValueError("secret"), errors.ConvexError("secret")])
def test_an_unexpected_error_is_logged_and_not_shown(error, caplog):
    with caplog.at_level(logging.ERROR, "reactive_store.server"):
        response = error_response(error, RUNTIME)
    assert response.status_code == 500
    assert json.loads(response.body) == {
        "code": "InternalServerError",
        "message": "Your request couldn't be completed. Try again later.",
    }
    assert "incident=" in caplog.text
    assert "secret" in caplog.text
    assert b"secret" not in response.body


def test_every_class_of_the_tree_has_a_status():
    for name in errors.__all__:
        cls = getattr(errors, name)
        assert 400 <= status_of(cls("m")) < 600
