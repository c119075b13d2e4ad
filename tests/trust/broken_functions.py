"""Breakages of functions, sessions and credentials, each with the test that has to see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import pytest

from reactive_store.auth.authenticator import Authenticator
from reactive_store.auth.identity import ANONYMOUS, Caller, Identity
from reactive_store.auth.keys import AdminKeys
from reactive_store.backend import Backend, DeploymentEnvironment
from reactive_store.engine.catalog import ENVIRONMENT
from reactive_store.functions import execution as execution_module
from reactive_store.functions import runner as runner_module
from reactive_store.functions import session_requests
from reactive_store.functions.db import DatabaseReader
from reactive_store.functions.definitions import FunctionKind
from reactive_store.functions.environment import Environment, _id_of
from reactive_store.functions.execution import CallChecks, Execution, _NestedCalls
from reactive_store.functions.live_queries import LiveQueries, Watch, _Question
from reactive_store.functions.outcome import Failure, Success
from reactive_store.functions.pagination import CursorCodec, ReadScope
from reactive_store.functions.runner import Runner
from reactive_store.sync.messages import Connect
from reactive_store.sync.session import RunAction, RunMutation, Session
from reactive_store.sync.worker import Worker
from reactive_store.values.document import Document
from tests.trust.named_test import Catalogue

__all__ = ["BREAKAGES", "CAUGHT_BY"]

_CATALOGUE = Catalogue()
BREAKAGES = _CATALOGUE.breakages
CAUGHT_BY = _CATALOGUE.caught_by
broken = _CATALOGUE.broken

LIVE = "tests/functions/test_live_queries.py"
RUNNER = "tests/functions/test_runner.py"
EXECUTION = "tests/functions/test_execution.py"


# Transactions of functions.


@broken(
    "failed-mutation-kept",
    "serializable",
    "a mutation that raised is committed as if it had returned",
    caught_by=f"{EXECUTION}::test_an_uncaught_failure_keeps_nothing",
)
def _failed_mutation_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Execution.run

    async def forgiving(self: Execution, function: Any, args: Mapping[str, Any]) -> Any:
        try:
            return await run(self, function, args)
        except Exception:
            return None

    monkeypatch.setattr(Execution, "run", forgiving)


@broken(
    "error-told-before-its-cause-is-durable",
    "durable",
    "an error that rests on what is not on disk yet is told at once",
    caught_by=f"{RUNNER}::test_a_failure_that_rests_on_lost_data_is_not_told",
)
def _error_told_early(monkeypatch: pytest.MonkeyPatch) -> None:
    accept = Runner.accept_mutation

    async def hasty(self: Runner, *what: Any, **how: Any) -> Any:
        accepted = await accept(self, *what, **how)
        if isinstance(accepted.outcome, Failure):
            return replace(accepted, ts=0)
        return accepted

    monkeypatch.setattr(Runner, "accept_mutation", hasty)


@broken(
    "late-task-writes",
    "serializable",
    "a task that a function left behind goes on reading and writing",
    caught_by=f"{EXECUTION}::test_a_task_that_is_left_behind_cannot_write",
)
def _late_task_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DatabaseReader, "close", lambda self: self._scope)


@broken(
    "siblings-undo-each-other",
    "serializable",
    "nested mutations run beside each other, so undoing one undoes another",
    caught_by=f"{EXECUTION}::test_siblings_at_once_do_not_undo_each_other",
)
def _siblings_undo_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_mutation(self: _NestedCalls, reference: object, args: Mapping[str, Any]) -> Any:
        transaction = self._execution.transaction
        savepoint = transaction.savepoint()
        try:
            return await self._execution.nested(
                reference, args, FunctionKind.MUTATION, depth=self._depth
            )
        except BaseException:
            transaction.rollback(savepoint)
            raise

    monkeypatch.setattr(_NestedCalls, "run_mutation", run_mutation)


@broken(
    "repeated-without-its-result",
    "exactly once",
    "a mutation that is sent again is answered, but not with its result",
    caught_by=f"{RUNNER}::test_a_request_that_committed_is_answered_from_its_record",
)
def _repeated_without_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = Runner._replay

    def empty(self: Runner, *what: Any) -> Success | None:
        found = replay(self, *what)
        return found and Success(b"null", found.log_lines, found.ts)

    monkeypatch.setattr(Runner, "_replay", empty)


@broken(
    "request-of-any-session",
    "exactly once",
    "a request counts as done when another session had one of that number",
    caught_by=f"{RUNNER}::test_other_requests_and_sessions_are_their_own",
)
def _request_of_any_session(monkeypatch: pytest.MonkeyPatch) -> None:
    init = session_requests._Session.__init__

    def alike(self: session_requests._Session, _session_id: str) -> None:
        init(self, "")

    monkeypatch.setattr(session_requests._Session, "__init__", alike)


@broken(
    "action-twice",
    "exactly once",
    "an action that failed is run once more",
    caught_by=f"{RUNNER}::test_what_an_action_committed_stays_when_it_fails",
)
def _action_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    act = Runner._act

    async def again(self: Runner, *what: Any, depth: int) -> Any:
        try:
            return await act(self, *what, depth=depth)
        except Exception:
            return await act(self, *what, depth=depth)

    monkeypatch.setattr(Runner, "_act", again)


@broken(
    "half-of-the-variables",
    "serializable",
    "environment variables that are set together are set one by one",
    caught_by="tests/functions/test_environment.py::"
    "test_what_cannot_be_a_variable_is_refused_with_all_of_its_changes",
)
def _half_of_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    update = DeploymentEnvironment.update

    async def one_by_one(self: DeploymentEnvironment, changes: Mapping[str, Any]) -> None:
        for name, value in changes.items():
            await update(self, {name: value})

    monkeypatch.setattr(DeploymentEnvironment, "update", one_by_one)


@broken(
    "reload-half-way",
    "serializable",
    "new code serves although its schema was refused",
    caught_by="tests/test_backend.py::test_a_failed_reload_changes_nothing",
)
def _reload_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    reload = Backend.reload

    async def hasty(self: Backend, app: Any) -> None:
        self.runner.app = app
        await reload(self, app)

    monkeypatch.setattr(Backend, "reload", hasty)


# Live queries.


@broken(
    "identity-not-noticed",
    "robust",
    "a query that looked at the caller's identity is shared with everybody",
    caught_by=f"{LIVE}::test_queries_that_look_at_the_identity_are_not_shared",
)
def _identity_not_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look(self: Execution) -> Any:
        return self._caller.identity

    monkeypatch.setattr(Execution, "get_user_identity", look)


@broken(
    "answer-of-somebody-else",
    "robust",
    "a one-time query is answered with what another user is watching",
    caught_by=f"{LIVE}::test_answers_that_depend_on_the_identity_are_given_to_that_identity_only",
)
def _answer_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    async def query(self: LiveQueries, path: str, args: bytes, caller: Any) -> Any:
        for live in self._live:
            asked = live.question
            if (asked.path, asked.args) == (path, args) and live.success is not None:
                return live.success
        return await self._runner.query(path, args, caller)

    monkeypatch.setattr(LiveQueries, "query", query)


@broken(
    "admin-shares-with-all",
    "robust",
    "what an administrator may see is shared with those who may not",
    caught_by=f"{LIVE}::test_admins_and_others_do_not_share",
)
def _admin_shares_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def watch(
        self: LiveQueries, path: str, args: bytes, caller: Any, journal: Any, on_invalid: Any
    ) -> Watch:
        return Watch(self, _Question(path, args, journal, False), caller, on_invalid)

    monkeypatch.setattr(LiveQueries, "watch", watch)


@broken(
    "variable-not-watched",
    "complete push",
    "a query that read an environment variable is not told when it changes",
    caught_by="tests/functions/test_environment.py::"
    "test_a_change_runs_only_the_queries_that_read_that_variable",
)
def _variable_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    def getitem(self: Environment, name: str) -> str:
        row = self._transaction._peek(ENVIRONMENT, _id_of(name))
        if row is None:
            raise KeyError(name)
        return str(Document(row.value, ENVIRONMENT)["value"])

    monkeypatch.setattr(Environment, "__getitem__", getitem)


@broken(
    "old-code-answers",
    "complete push",
    "answers of the old code stay after a reload",
    caught_by=f"{LIVE}::test_a_reload_ends_every_answer_even_when_no_data_changes",
)
def _old_code_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveQueries, "invalidate_all", lambda self: None)


@broken(
    "journal-ignored",
    "consistent push",
    "a watched page that runs again may end elsewhere, so pages overlap",
    caught_by=f"{LIVE}::test_a_page_keeps_its_end",
)
def _journal_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    init = ReadScope.__init__

    def forget(self: ReadScope, tx: Any, pause: Any, cursors: Any, _journal: Any) -> None:
        init(self, tx, pause, cursors, None)

    monkeypatch.setattr(ReadScope, "__init__", forget)


@broken(
    "future-accepted",
    "consistent push",
    "a client that has seen a later state than the store's is welcomed",
    caught_by="tests/sync/test_session.py::test_a_client_that_saw_the_future_is_sent_away",
)
def _future_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(self: Session, message: Connect, _now_ns: int) -> None:
        self._session_id = message.session_id

    monkeypatch.setitem(Session._handlers, Connect, connect)


@broken(
    "past-of-somebody-else",
    "robust",
    "who is behind is answered with what the first watcher was allowed to see then",
    caught_by=f"{LIVE}::test_an_answer_of_the_past_is_not_somebody_elses",
)
def _past_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    past = LiveQueries._past

    async def of_the_first(self: LiveQueries, query: Any, _caller: Any, at: int) -> Any:
        return await past(self, query, query.caller, at)

    monkeypatch.setattr(LiveQueries, "_past", of_the_first)


# What is held.


@broken(
    "watches-of-the-dead",
    "bounded",
    "the watches of a socket that has ended stay",
    caught_by="tests/sync/test_worker.py::"
    "test_a_socket_that_ends_closes_its_watches_and_lets_calls_end",
)
def _watches_of_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "_close_watches", lambda self: None)


@broken(
    "queries-nobody-watches",
    "bounded",
    "a live query stays when its last watcher has gone",
    caught_by=f"{LIVE}::test_closing_the_last_watch_frees_everything",
)
def _queries_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    def detach(self: LiveQueries, watch: Watch, query: Any) -> None:
        query.watches.pop(watch, None)

    monkeypatch.setattr(LiveQueries, "_detach", detach)


@broken(
    "results-of-any-size",
    "bounded",
    "a result may be as large as memory",
    caught_by=f"{RUNNER}::test_arguments_and_results_have_limits",
)
def _results_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CallChecks, "result_size", staticmethod(lambda path, size, limits: None))


# Who may what.


@broken(
    "internal-for-all",
    "robust",
    "internal functions may be called by anybody",
    caught_by=f"{RUNNER}::test_internal_functions_are_for_admins",
)
def _internal_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    find = execution_module.find_function

    def trusting(app: Any, path: str, kind: FunctionKind, *, is_trusted: bool) -> Any:
        return find(app, path, kind, is_trusted=True)

    monkeypatch.setattr(runner_module, "find_function", trusting)


@broken(
    "key-of-another-instance",
    "robust",
    "an admin key is accepted for its name, whatever secret made it",
    caught_by="tests/auth/test_keys.py::test_keys_of_another_secret_or_instance_are_refused",
)
def _key_of_another_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    def verify(self: AdminKeys, key: str) -> bool:
        return key.strip().partition("|")[0].rpartition(":")[2] == self.name

    monkeypatch.setattr(AdminKeys, "verify", verify)


@broken(
    "cursor-of-another-deployment",
    "robust",
    "every deployment seals its cursors with the same secret",
    caught_by="tests/functions/test_pagination.py::test_a_cursor_of_another_deployment_is_refused",
)
def _cursor_of_another_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    def seal(self: CursorCodec, content: bytes) -> bytes:
        return blake2b(content, key=b"same", digest_size=16).digest()

    monkeypatch.setattr(CursorCodec, "_seal", seal)
    monkeypatch.setattr(CursorCodec, "_mask", lambda self, seal, content: content)


@broken(
    "one-subject-one-user",
    "robust",
    "users of different issuers are taken for one when their subject is the same",
    caught_by="tests/auth/test_identity.py::test_equal_content_is_one_identity_whatever_the_order",
)
def _one_subject_one_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def equal(self: Identity, other: object) -> bool:
        return isinstance(other, Identity) and self.subject == other.subject

    monkeypatch.setattr(Identity, "__eq__", equal)
    monkeypatch.setattr(Identity, "__hash__", lambda self: hash(self.subject))


@broken(
    "any-token-will-do",
    "robust",
    "a user's token that nobody vouches for is accepted",
    caught_by="tests/auth/test_authenticator.py::test_a_user_token_is_refused_with_the_reason",
)
def _any_token_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    async def authenticate(self: Authenticator, _token: str) -> Caller:
        return ANONYMOUS

    monkeypatch.setattr(Authenticator, "authenticate", authenticate)


@broken(
    "expired-and-served",
    "robust",
    "an identity that has ended goes on calling",
    caught_by="tests/sync/test_session_calls.py::test_an_identity_that_has_ended_cannot_call",
)
def _expired_and_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "_is_expired", lambda self, now_ns: False)


@broken(
    "identity-of-later",
    "robust",
    "a waiting call runs as who the client became after sending it",
    caught_by="tests/sync/test_session_calls.py::"
    "test_the_identity_is_the_one_when_the_message_came",
)
def _identity_of_later(monkeypatch: pytest.MonkeyPatch) -> None:
    next_work = Session.next_work

    def of_now(self: Session, now_ns: int) -> Any:
        work = next_work(self, now_ns)
        if isinstance(work, RunMutation | RunAction):
            return replace(work, caller=self._caller)
        return work

    monkeypatch.setattr(Session, "next_work", of_now)


@broken(
    "system-functions-for-all",
    "robust",
    "functions for administrators may be called by anybody",
    caught_by=f"{RUNNER}::test_system_functions_are_for_admins",
)
def _system_functions_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    find = Runner._find

    def trusting(self: Runner, path: str, kind: FunctionKind, caller: Caller) -> Any:
        return find(self, path, kind, replace(caller, is_admin=path.startswith("_system/")))

    monkeypatch.setattr(Runner, "_find", trusting)
