"""`ctx.meta`: what a call can learn about itself; and what a nested call can be told to do without.

    (await ctx.meta.get_transaction_metrics()).documents_read.remaining
    await ctx.run_query(api.stars.total, CallOptions(use_stale_snapshot=True), repo=repo)
    await ctx.run_mutation(ref, CallOptions(transaction_limits={"documents_read": 100}))

Nothing here is made before a function asks for it.

Source of facts: Convex's npm client 1.48 for the names and what they mean;
docs/reference/functions.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from reactive_store.auth.identity import Caller
from reactive_store.engine.transaction import Transaction
from reactive_store.errors import BadRequest
from reactive_store.functions.names import display_path
from reactive_store.functions.unawaited import Forgetful
from reactive_store.limits import Limits
from reactive_store.runtime import Runtime
from reactive_store.values.value import Int64

__all__ = [
    "CallOptions",
    "DeploymentMetadata",
    "FunctionMetadata",
    "Metadata",
    "RequestMetadata",
    "TransactionMetric",
    "TransactionMetrics",
    "narrowed",
]

# name → field of Usage (empty: counted elsewhere), field of Limits
_METRICS: Final[Mapping[str, tuple[str, str]]] = {
    "bytes_read": ("read_bytes", "read_bytes"),
    "bytes_written": ("written_bytes", "written_bytes"),
    "database_queries": ("", "read_intervals"),
    "documents_read": ("read_documents", "read_documents"),
    "documents_written": ("written_documents", "written_documents"),
    "functions_scheduled": ("scheduled_functions", "scheduled_functions"),
    "scheduled_function_args_bytes": ("scheduled_bytes", "scheduled_bytes"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """How a nested call differs from others; the second argument of `ctx.run_query` and its kin.

    Shapes   use_stale_snapshot: the query sees the state as it was when the mutation began, without
             what the mutation wrote, and nothing it reads can make the mutation run again.
             transaction_limits: names of TransactionMetrics and what the nested call may use of
             each; never more than is left
    """

    use_stale_snapshot: bool = False
    transaction_limits: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        limits: Mapping[str, object] = self.transaction_limits or {}
        for name, most in limits.items():
            if name not in _METRICS:
                raise TypeError(
                    f"There is no transaction limit {name!r}; there are " + ", ".join(_METRICS)
                )
            if not isinstance(most, int) or isinstance(most, bool) or most < 0:
                raise TypeError(f"The limit of {name} is a number from 0 on, not {most!r}")


@dataclass(frozen=True, slots=True)
class FunctionMetadata:
    """The function that runs."""

    name: str  # `messages:send`; `POST /webhook` for the handler of a route
    component_path: str  # empty: the app itself
    type: str  # query, mutation, action, httpAction
    visibility: str  # public, internal


@dataclass(frozen=True, slots=True)
class TransactionMetric:
    """How much of one limit is used up."""

    used: int
    remaining: int


@dataclass(frozen=True, slots=True)
class TransactionMetrics:
    """What a transaction, nested calls included, has used of its limits."""

    bytes_read: TransactionMetric
    bytes_written: TransactionMetric
    database_queries: TransactionMetric
    documents_read: TransactionMetric
    documents_written: TransactionMetric
    functions_scheduled: TransactionMetric
    scheduled_function_args_bytes: TransactionMetric


@dataclass(frozen=True, slots=True)
class DeploymentMetadata:
    """Where the function runs."""

    name: str
    region: str | None  # None: the deployment is somebody's own
    deployment_class: str


@dataclass(frozen=True, slots=True)
class RequestMetadata:
    """What made the function run. What is not known, or was no request, is None."""

    ip: str | None
    user_agent: str | None
    request_id: str
    scheduled_function_id: str | None
    auth_token: str | None


class _Described(Protocol):
    """The part of a FunctionDef that is told."""

    path: str

    @property
    def kind(self) -> Any: ...

    @property
    def visibility(self) -> Any: ...


class Metadata:
    """`ctx.meta` of one call."""

    __slots__ = ("_caller", "_calls", "_deployment", "_function", "_runtime", "_transaction")

    def __init__(
        self,
        calls: Forgetful,
        function: _Described,
        *,
        deployment: str,
        caller: Caller,
        runtime: Runtime,
        transaction: Transaction | None,
    ) -> None:
        self._calls = calls  # who is told of a call that was not awaited
        self._function = function
        self._deployment = deployment
        self._caller = caller
        self._runtime = runtime
        self._transaction = transaction  # None in an action

    async def get_function_metadata(self) -> FunctionMetadata:
        """The function that is running: name, type, visibility."""
        function = self._function
        kind = str(function.kind.value)
        return FunctionMetadata(
            display_path(function.path), "", kind[0].lower() + kind[1:], function.visibility
        )

    async def get_transaction_metrics(self) -> TransactionMetrics:
        """What the transaction has used so far, and what is left.

        Raises   BadRequest[NoTransaction] in an action
        """
        transaction = self._in_transaction("getTransactionMetrics")
        used = {name: _used(transaction, name) for name in _METRICS}
        limits = transaction.limits
        return TransactionMetrics(
            **{
                name: TransactionMetric(used[name], max(0, getattr(limits, limit) - used[name]))
                for name, (_, limit) in _METRICS.items()
            }
        )

    async def get_deployment_metadata(self) -> DeploymentMetadata:
        """The deployment: its name, and where and how large it is as far as anybody said."""
        return DeploymentMetadata(self._deployment, None, "s16")

    async def get_request_metadata(self) -> RequestMetadata:
        """The request that made this function run, whoever called it in between.

        Raises   BadRequest[NoRequest] in a query: its answer is for everybody who asks
        """
        transaction = self._transaction
        if transaction is not None and transaction.is_read_only:
            raise BadRequest(
                "get_request_metadata() can only be called from a mutation or an action: the "
                "answer of a query is shared by everybody who asks.",
                code="NoRequest",
            )
        caller = self._caller
        source = caller.request
        request_id = "" if source is None else source.request_id
        request_id = request_id or self._runtime.random_bytes(8).hex()
        if source is None:
            return RequestMetadata(None, None, request_id, caller.job, None)
        return RequestMetadata(
            source.ip, source.user_agent, request_id, caller.job, source.auth_token
        )

    def get_snapshot_ts(self) -> Int64:
        """The timestamp of the state this transaction reads, on the clock of commits.

        Units    nanoseconds
        Raises   BadRequest[NoTransaction] in an action
        """
        return Int64(self._in_transaction("getSnapshotTs").begin_ts)

    def _in_transaction(self, method: str) -> Transaction:
        if self._transaction is None:
            raise BadRequest(
                f"{method}() can only be called from a query or mutation. It is not available in "
                "actions or outside of a Convex function.",
                code="NoTransaction",
            )
        return self._transaction


def narrowed(transaction: Transaction, wanted: Mapping[str, int]) -> Limits:
    """The limits under which a nested call may use so much more than is used now."""
    limits = transaction.limits
    changes = {
        limit: min(getattr(limits, limit), _used(transaction, name) + wanted[name])
        for name, (_, limit) in _METRICS.items()
        if name in wanted
    }
    return replace(limits, **changes)


def _used(transaction: Transaction, name: str) -> int:
    field, _ = _METRICS[name]
    return int(getattr(transaction.usage, field)) if field else len(transaction.read_set())
