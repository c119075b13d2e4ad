"""Drives sessions: gives their work to the runner and the live queries, and sends what they say.

A `Worker` belongs to one socket and owns no task. When its session has work it is put on the list
of a `Pump`, which runs many workers in one task. What completes at once (nearly every Transition,
nearly every query) costs no task of its own; the task that has to wait becomes the owner of that
wait, and another one takes the rest of the list.

Invariants
- Frames leave in the order the session says them; nothing is sent after a close.
- The newest timestamp is read and the stale queries are taken without waiting in between.
- A socket's end closes its watches; a mutation or action that has begun goes on to its own end.
- A mutation that waits for the disk holds up nobody: its task goes on with the next worker, and
  the commit's publication says the response, before or with the Transition that reflects it.

Source   docs/architecture.md ("Live queries"); Convex's sync protocol
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, cast

from reactive_store.auth.authenticator import Authenticator
from reactive_store.auth.identity import ANONYMOUS, Caller, RequestSource
from reactive_store.engine.database import Database
from reactive_store.errors import ProtocolError, Retry, StoreError, StoreFailed
from reactive_store.functions.live_queries import LiveQueries, LiveResult, Watch
from reactive_store.functions.outcome import Failure, Outcome, Success, client_message
from reactive_store.functions.runner import Accepted, Runner, SessionRequest
from reactive_store.limits import Limits
from reactive_store.persistence.contract import Timestamp
from reactive_store.runtime import Runtime
from reactive_store.sync.frames import Moment, SharedFrame
from reactive_store.sync.messages import (
    ActionResponse,
    Authenticate,
    ClientVersion,
    Close,
    MutationResponse,
    QueryFailed,
)
from reactive_store.sync.protocol import decode_client, encode_body
from reactive_store.sync.session import (
    ComputeTransition,
    OpenQuery,
    RunAction,
    RunMutation,
    Session,
    SessionStatistics,
    Verified,
    Verify,
    Work,
)

__all__ = ["Pump", "Transport", "Worker"]

_log = logging.getLogger("reactive_store.sync")

_WORKERS_PER_STEP = 128  # then the loop reads sockets again …
_STEP_S = 0.01  # … or after this long, should their functions take more
_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 30.0


class Transport(Protocol):
    """The sending half of a socket. Never blocks and never raises; after `close` it drops."""

    @property
    def is_writable(self) -> bool:
        """Whether less than the high-water mark is waiting to be written."""
        ...

    def send(self, frame: bytes) -> None:
        """Queue one text frame (UTF-8)."""
        ...

    def send_all(self, frames: Sequence[bytes]) -> None:
        """Queue several text frames, to leave together."""
        ...

    def send_shared(self, frame: SharedFrame) -> None:
        """Queue one text frame that other sockets send as well."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Send a close frame behind everything queued."""
        ...


class Pump:
    """The workers that have something to do, and the tasks that run them."""

    __slots__ = ("_due", "_is_closed", "_is_scheduled", "_runtime", "_tasks")

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        # Workers whose `is_awake` is set, in order of waking.
        self._due: deque[Worker] = deque()
        # A call of `_start` is on its way.
        self._is_scheduled = False
        self._is_closed = False  # set once, by `close`: nothing is begun any more
        self._tasks: set[asyncio.Task[None]] = set()

    def wake(self, worker: Worker) -> None:
        """Give a worker its turn soon. Waking it again before that changes nothing."""
        if worker.is_awake or self._is_closed:
            return
        worker.is_awake = True
        self._due.append(worker)
        self._schedule()

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Run something beside the workers; it may outlive its socket."""
        task = self._runtime.spawn(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel whatever still runs, and wait for its end. Nothing begins after that."""
        self._is_closed = True
        self._due.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._is_scheduled = False
        due = self._due
        # Often the task that owned the wait has done the work meanwhile: no task for nothing.
        while due and not due[0].has_work:
            worker = due.popleft()
            worker.is_awake = False
            worker.flush()  # what it had to say may still be there
        if not due:
            return
        # The batch is closed here, one turn of the loop before it runs: see the invariants.
        if len(due) <= _WORKERS_PER_STEP:
            batch, self._due = due, deque()
        else:
            batch = deque(due.popleft() for _ in range(_WORKERS_PER_STEP))
            self._schedule()
        self.spawn(self._conduct(batch), name="sync workers")

    async def _conduct(self, batch: deque[Worker]) -> None:
        runtime = self._runtime
        moment = Moment(runtime.now_ns(), runtime.monotonic_s())
        asyncio.get_running_loop().call_soon(self._take_over, batch, moment)
        while batch:
            worker = batch.popleft()
            worker.is_awake = False
            rest = worker.advance(moment)
            if rest is not None:
                await rest
            if batch and runtime.monotonic_s() - moment.now_s > _STEP_S:
                await runtime.sleep(0)  # `_take_over` puts the rest back

    def _take_over(self, batch: deque[Worker], moment: Moment) -> None:
        # Runs once the conductor has given the loop back: it is done, or waits for one worker.
        moment.is_over = True
        if batch:
            if not self._is_closed:
                self._due.extendleft(reversed(batch))
                self._schedule()
            batch.clear()


class _FaultyQuery:
    """Stands for a watch whose call is wrong in itself: the same failure at any time."""

    __slots__ = ("_result",)

    def __init__(self, message: str, fault: str) -> None:
        body = encode_body(QueryFailed(0, message))
        self._result = LiveResult(body, failed=True, fingerprint=fault.encode(), journal=None)

    def ready(self, _at: Timestamp) -> LiveResult:
        return self._result

    async def result(self, _at: Timestamp) -> LiveResult:
        return self._result

    def close(self) -> None:
        pass


class Worker:
    """One socket. The server calls the `on_…` methods and `receive`; none of them waits.

    `pump` is best shared by all workers of a backend; without one the worker has its own.
    `redact` hides error texts and log lines of mutations and actions (live queries do their own).
    `source` is what is known of the peer.
    """

    __slots__ = (
        "_authenticator",
        "_database",
        "_failed_transitions",
        "_live_queries",
        "_nobody",
        "_pump",
        "_redact",
        "_runner",
        "_runtime",
        "_session",
        "_source",
        "_transport",
        "_watches",
        "is_awake",
    )

    def __init__(
        self,
        runner: Runner,
        live_queries: LiveQueries,
        database: Database,
        authenticator: Authenticator,
        runtime: Runtime,
        limits: Limits,
        transport: Transport,
        client: ClientVersion,
        redact: bool,
        pump: Pump | None = None,
        source: RequestSource | None = None,
    ) -> None:
        self._runner = runner
        self._live_queries = live_queries
        self._authenticator = authenticator
        self._database = database
        self._runtime = runtime
        self._transport = transport
        self._redact = redact
        self._source = source
        self._nobody = replace(ANONYMOUS, request=source)
        self._pump = Pump(runtime) if pump is None else pump
        self._session = Session(
            limits,
            lambda: database.latest_ts,
            runtime.monotonic_s(),
            takes_chunks=client.takes_chunks,
        )
        # By query id, of the queries the session has had opened and not closed.
        self._watches: dict[int, Watch | _FaultyQuery] = {}
        self._failed_transitions = 0  # in a row; decides how long the next try waits
        self.is_awake = False  # on the pump's list; set and cleared by the pump

    # Called by the server.

    def receive(self, text: str | bytes) -> None:
        """A text frame arrived."""
        runtime = self._runtime
        try:
            message = decode_client(text)
        except ProtocolError as error:
            self._session.fail(error)
        else:
            self._session.receive(message, runtime.now_ns(), runtime.monotonic_s())
        self._settle()

    def receive_binary(self) -> None:
        """A binary frame arrived, which no client sends."""
        self._session.fail(RuntimeError("binary frame"))
        self._settle()

    def on_pong(self) -> None:
        """A frame that is no message arrived. From the first one on, silence ends the socket."""
        self._session.hear(self._runtime.monotonic_s())

    def on_writable(self) -> None:
        """The transport has fallen below its high-water mark."""
        self._session.drained()
        self._settle()

    def on_tick(self) -> None:
        """Time has passed; to be called every one to five seconds."""
        self._session.tick(self._runtime.monotonic_s())
        self._settle()

    def on_disconnect(self) -> None:
        """The socket is gone."""
        self._session.disconnect()
        self._close_watches()

    @property
    def is_closed(self) -> bool:
        """Whether the conversation has ended, on either side."""
        return self._session.is_closed

    def statistics(self) -> SessionStatistics:
        """What the session holds right now."""
        return self._session.statistics()

    # Called by the pump.

    @property
    def has_work(self) -> bool:
        """Whether `advance` would do anything."""
        return self._session.has_work

    def advance(self, moment: Moment) -> Coroutine[Any, Any, None] | None:
        """Do all the work there is: what needs no waiting at once, the rest in what is returned.

        Several may be waiting at once, each in its own work.
        """
        push = self._session.begin_push(moment.now_ns)
        if push is None or moment.is_over:
            return self._advance(push, moment)
        watch = self._watches.get(push.reread[0])
        result = None if watch is None else watch.ready(push.ts)
        if result is None:
            return self._advance(push, moment)
        if self._say_push(push, result, moment) or not self._session.has_work:
            return None
        return self._advance(None, moment)

    async def _advance(self, push: ComputeTransition | None, moment: Moment) -> None:
        session = self._session
        self._flush_soon()
        if push is not None:
            await self._push(push, moment)
            if not session.has_work:
                return
        runtime = self._runtime
        while (work := session.next_work(runtime.now_ns())) is not None:
            if session.has_work:
                self._pump.wake(self)  # if this work has to wait, the rest need not
            if type(work) is RunMutation:
                await self._mutate(work)
            elif type(work) is RunAction:
                self._pump.spawn(self._finish(work), name="sync action")
            else:
                self._flush_soon()
                await self._finish(work)
        self.flush()

    async def _push(self, work: ComputeTransition, moment: Moment) -> None:
        # `_finish` for the answer of one query, which is what nearly every Transition tells.
        watch = self._watches.get(work.reread[0])
        if watch is None:
            await self._finish(work)
            return
        try:
            result = await watch.result(work.ts)
        except Exception as error:  # noqa: BLE001 - as in `_finish`
            self._note(work, error)
            self._session.complete(work, error, self._runtime.now_ns())
            self.flush()
            return
        if moment.is_over:
            moment = Moment(self._runtime.now_ns(), self._runtime.monotonic_s())
        self._say_push(work, result, moment)

    def _say_push(self, work: ComputeTransition, result: LiveResult, moment: Moment) -> bool:
        """Tell the answer of one query. Whether that was all there is to do."""
        self._failed_transitions = 0
        session, transport = self._session, self._transport
        said: Sequence[bytes] = ()
        if session.has_outgoing and not session.is_closed:  # then there is no Close among them
            said = cast(Sequence[bytes], session.take_outgoing(moment.now_s))
        frame = session.push(work, result, moment)
        if frame is None:
            if said:
                transport.send_all(said)
            self.flush()
            return False
        if said:
            transport.send_all([*said, frame.text])
        else:
            transport.send_shared(frame)
        if transport.is_writable:
            session.drained()
        return True

    async def _finish(self, work: Work) -> None:
        result: object
        try:
            result = await self._result_of(work)
        except Exception as error:  # noqa: BLE001 - the boundary that owns failures of a socket's work
            result = error
            self._note(work, error)
        session = self._session
        session.complete(work, result, self._runtime.now_ns())
        self.flush()
        if type(work) is RunAction and session.has_work:
            self._pump.wake(self)

    async def _result_of(self, work: Work) -> object:
        match work:
            case ComputeTransition():
                return await self._results(work)
            case RunAction():
                return await self._action(work)
            case Verify():
                caller = await self._verify(work.message)
                return Verified(caller, caller.expires_ns)
            case RunMutation():
                raise AssertionError("mutations are told when they are durable")

    # The kinds of work.

    async def _mutate(self, work: RunMutation) -> None:
        """Run a mutation; `_told` ends it once its outcome is durable. Nobody waits meanwhile."""
        try:
            accepted = await self._accepted(work)
        except Exception as error:  # noqa: BLE001 - as in `_finish`
            self._note(work, error)
            self._session.complete(work, error, self._runtime.now_ns())
            self.flush()
            return
        told = partial(self._told, work, accepted.outcome)
        self._database.when_durable(accepted.ts, told)

    async def _accepted(self, work: RunMutation) -> Accepted:
        if work.fault is not None:
            return Accepted(_refusal(work.fault), Timestamp(0))
        session_id, request_id = work.session_id, work.request_id
        request = None if session_id is None else SessionRequest(session_id, request_id)
        caller = self._nobody if work.caller is ANONYMOUS else work.caller
        return await self._runner.accept_mutation(work.path, work.args, caller, session=request)

    def _told(self, work: RunMutation, outcome: Outcome, failure: StoreFailed | None) -> None:
        # Called from inside a commit's publication, which no exception may reach.
        session = self._session
        try:
            result = self._mutation_response(work, outcome) if failure is None else failure
            if failure is not None:
                self._note(work, failure)
            session.complete(work, result, self._runtime.now_ns())
        except Exception as error:  # noqa: BLE001 - as in `_finish`
            self._note(work, error)
            session.fail(error)
        if session.has_work:
            self._pump.wake(self)
        else:
            asyncio.get_running_loop().call_soon(self.flush)

    def _mutation_response(self, work: RunMutation, outcome: Outcome) -> MutationResponse:
        log_lines = () if self._redact else outcome.log_lines
        if isinstance(outcome, Success):
            return MutationResponse(work.request_id, True, outcome.value, outcome.ts, log_lines)
        text = self._error_text(work, outcome)
        return MutationResponse(work.request_id, False, text, None, log_lines, outcome.data)

    async def _action(self, work: RunAction) -> ActionResponse:
        if work.fault is not None:
            outcome: Outcome = _refusal(work.fault)
        else:
            caller = self._nobody if work.caller is ANONYMOUS else work.caller
            outcome = await self._runner.action(work.path, work.args, caller)
        log_lines = () if self._redact else outcome.log_lines
        if isinstance(outcome, Success):
            return ActionResponse(work.request_id, True, outcome.value, log_lines)
        text = self._error_text(work, outcome)
        return ActionResponse(work.request_id, False, text, log_lines, outcome.data)

    async def _verify(self, message: Authenticate) -> Caller:
        source = self._source
        if message.kind == "Admin":
            caller = self._authenticator.admin(message.value, message.acting_as)
        else:
            caller = await self._authenticator.authenticate(message.value)
            if source is not None:
                source = replace(source, auth_token=message.value)
        return caller if source is None else replace(caller, request=source)

    async def _results(self, work: ComputeTransition) -> dict[int, LiveResult]:
        watches = self._watches
        for opening in work.opened:
            # The new one first: what both share is not torn down in between.
            old = watches.get(opening.query_id)
            watches[opening.query_id] = self._open(opening, work.caller)
            if old is not None:
                old.close()
        for query_id in work.closed:
            gone = watches.pop(query_id, None)
            if gone is not None:
                gone.close()
        results: dict[int, LiveResult] = {}
        runtime = self._runtime
        began_s = runtime.monotonic_s()
        for query_id in work.reread:
            if runtime.monotonic_s() - began_s > _STEP_S:
                await runtime.sleep(0)
                began_s = runtime.monotonic_s()
            watch = watches.get(query_id)
            if watch is None:
                break  # the socket has ended while an earlier one was waited for
            results[query_id] = await watch.result(work.ts)
        self._failed_transitions = 0
        return results

    def _open(self, opening: OpenQuery, caller: Caller) -> Watch | _FaultyQuery:
        fault = opening.fault
        if fault is not None:
            request_id = self._runtime.random_bytes(8).hex()
            text = client_message(_refusal(fault), request_id, redact=self._redact)
            return _FaultyQuery(text, fault)
        return self._live_queries.watch(
            opening.path,
            opening.args,
            caller,
            opening.journal,
            partial(self._invalidate, opening.query_id),
        )

    def _invalidate(self, query_id: int) -> None:
        # Called from inside a commit's publication: only mark, never compute.
        if self._session.invalidate(query_id) and not self.is_awake:
            self._pump.wake(self)

    async def _retry_later(self, delay_s: float) -> None:
        await self._runtime.sleep(delay_s)
        self._session.resume()
        self._settle()

    # Failures.

    def _error_text(self, work: RunMutation | RunAction, failure: Failure) -> str:
        if work.session_id is None:
            request_id = self._runtime.random_bytes(8).hex()
        else:
            named = f"{work.session_id}|{work.request_id}"
            request_id = hashlib.sha256(named.encode()).hexdigest()[:16]
        return client_message(failure, request_id, redact=self._redact)

    def _note(self, work: Work, error: Exception) -> None:
        if self._session.is_closed:
            return  # nobody is left to be told
        if isinstance(work, ComputeTransition) and isinstance(error, Retry):
            delay_s = min(_FIRST_RETRY_S * 2**self._failed_transitions, _LONGEST_RETRY_S)
            self._failed_transitions += 1
            self._pump.spawn(self._retry_later(delay_s), name="sync retry")
            return
        if isinstance(error, Retry) or (isinstance(work, Verify) and isinstance(error, StoreError)):
            return  # the client is told what is wrong
        _log.error(
            "work=%s fault=%s the connection ends",
            type(work).__name__,
            self._runtime.random_bytes(4).hex(),
            exc_info=error,
        )

    # Sending.

    def _settle(self) -> None:
        self.flush()
        if not self.is_awake and self._session.has_work:
            self._pump.wake(self)

    def _flush_soon(self) -> None:
        # A response goes with the Transition that reflects it, if that can be told without waiting.
        if self._session.has_outgoing:
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Send what the session has said."""
        session = self._session
        outgoing = session.take_outgoing(self._runtime.monotonic_s())
        if not outgoing:
            return
        transport = self._transport
        last = outgoing[-1]
        # All but a last Close are frames.
        frames = cast(Sequence[bytes], outgoing[:-1] if isinstance(last, Close) else outgoing)
        if len(frames) == 1:
            transport.send(frames[0])
        elif frames:
            transport.send_all(frames)
        if isinstance(last, Close):
            transport.close(last.code, last.reason)
            self._close_watches()
        elif transport.is_writable:
            session.drained()

    def _close_watches(self) -> None:
        watches = list(self._watches.values())
        self._watches.clear()
        for watch in watches:
            watch.close()


def _refusal(fault: str) -> Failure:
    return Failure(f"{fault}\n", None, ())
