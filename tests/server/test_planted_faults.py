"""The lines of the worker's contract, each with the tests that keep it and faults they must notice.

A fault is planted by replacing a method of the real classes; then the test is run as it stands and
has to fail, soon.
"""

from __future__ import annotations

import gc
import inspect
import os
import select
import socket
import threading
import time
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from gateways import errors, events, wsgi
from gateways.server import worker as worker_module
from gateways.server.backlog import Backlog
from gateways.server.body import Body
from gateways.server.connection import Connection
from gateways.server.exchange import Exchange
from gateways.server.sending import Sending
from gateways.server.spool import Spool
from gateways.server.worker import Worker
from tests.server import live, test_body, test_deadlines
from tests.server import test_connection_contract as contract
from tests.server import test_contract_lines as lines
from tests.server import test_reading_stops as stops

Plant = Callable[[pytest.MonkeyPatch], None]

PATIENCE = 0.4
"""Seconds that a test waits while a fault is planted.  One that gives up too soon fails too, which
is no harm here: that it passes without the fault is seen where it stands."""


class Clause(NamedTuple):
    """A line of the contract, a test that keeps it, how it is called, and a fault."""

    line: str
    test: Callable[..., None]
    arguments: dict[str, Any]
    fault: Plant


def replaced(owner: type | ModuleType, name: str, method: Callable[..., Any]) -> Plant:
    """Return a fault: this method in place of the right one."""
    return lambda monkeypatch: monkeypatch.setattr(owner, name, method)


def nothing(*_: object) -> None:
    """A method that was forgotten."""


# Reading.


def read_once(self: Connection, ready: list[Any], to_the_end: bool) -> None:
    exchanges = list(self._exchanges.values())
    awaited = [each for each in exchanges if not each.body.ended]
    if not self._ended:
        (self._read_body if awaited else self._read_head)(ready)


def read_a_head_once(self: Connection, ready: list[Any]) -> None:
    self._read_head(ready)


_read = Connection._read


def read_to_the_first_short_one(self: Connection, ready: list[Any], to_the_end: bool) -> None:
    _read(self, ready, False)


_pump = Connection.pump


def pump_once(self: Connection, *, to_the_end: bool = False) -> list[Any]:
    ready: list[Any] = []
    self._pending = True
    if self._read_lock.acquire(False):
        self._pending = False
        self._read(ready, to_the_end)
        self._read_lock.release()
    self._close_when_over()
    return ready


def pump_with_pending_set_late(self: Connection, *, to_the_end: bool = False) -> list[Any]:
    ready: list[Any] = []
    if self._read_lock.acquire(False):
        self._pending = True
        while self._pending:
            self._pending = False
            self._read(ready, to_the_end)
        self._read_lock.release()
    self._close_when_over()
    return ready


def pending_set_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "pump", pump_with_pending_set_late)
    monkeypatch.setattr(Connection, "serve", lambda self, mask: self.worker.run_first(self.pump()))


def serve_without_looking_again(self: Connection, mask: int) -> None:
    self._pending = True
    if not self._read_lock.acquire(False):
        return
    ready: list[Any] = []
    self._pending = False
    exchange = self._read_request(ready)
    self._read_lock.release()
    if exchange is not None:
        exchange.run()
    self.worker.run_first(ready)


def close_without_looking_again(self: Connection) -> None:
    if not (self.closed or self._active or not (self._special or self._closes)):
        with self._read_lock, self._lock:
            self._end_if_over()


_run_application = wsgi.run


def under_the_read_lock(
    application: Any, environ: Any, send: Any, request_id: int, *more: Any
) -> None:
    with send.__self__.connection._read_lock:
        _run_application(application, environ, send, request_id, *more)


def wait_for_the_wake_only(self: Connection, wake: int, seconds: float) -> None:
    poller = select.poll()
    poller.register(wake, select.POLLIN)
    poller.poll(seconds * 1000)
    self.worker.clear_wake(wake)


def wait_for_the_descriptor_only(self: Connection, wake: int, seconds: float) -> None:
    poller = select.poll()
    poller.register(self.descriptor, select.POLLIN)
    poller.poll(seconds * 1000)


def run_all_here(self: Worker, jobs: list[Any]) -> None:
    for job in jobs:
        job.run()


_on_event = Exchange.on_event


def keep_all_in_memory(self: Exchange, event: events.Event, *, spill: bool) -> None:
    _on_event(self, event, spill=False)


def look_at_a_changing_dictionary(self: Connection, ready: list[Any], to_the_end: bool) -> None:
    for each in self._exchanges.values():
        assert each.body.ended in (True, False)
    _read(self, ready, to_the_end)


def reckon_once(self: Sending) -> None:
    self._special = self._is_special()


def evict_without_looking_again(self: Connection) -> bool:
    with self._read_lock, self._lock:
        if self.is_idle() and not self._pending:
            self._cut()
    self._close_when_over()
    return self.closed


_is_blocked = Connection._is_blocked


def blocked_until_another_request_comes(self: Connection) -> bool:
    if not self._exchanges and self._backlog is None:
        return False
    return _is_blocked(self)


def blocked_said_last(self: Connection) -> bool:
    if not (self._paused or self._exchanges or self._backlog is not None):
        return False
    with self._lock:
        self._paused = self._must_wait()
        return self._paused


_after = Connection._after


def end_without_reading_on(self: Connection, job: Any) -> None:
    paused, self._paused = self._paused, False
    _after(self, job)
    self._paused = paused


def wait_without_sending(self: Connection, wake: int, seconds: float) -> None:
    poller = select.poll()
    poller.register(wake, select.POLLIN)
    poller.register(self.descriptor, 0 if self._paused else select.POLLIN)
    poller.poll(seconds * 1000)
    self.worker.clear_wake(wake)


def one_deadline_for_all_heads(self: Connection, arrived: list[events.Event]) -> None:
    if not self.codec.head_pending:
        self.deadline = 0.0
    elif not self.deadline:
        self.deadline = time.monotonic() + self.worker.options.head_timeout


# Registering and closing.


_accept = Worker._accept


def accept_and_then_tell(self: Worker, listener: Any, seat: Any) -> bool:
    class Told:
        """A seat that is told of its connection late."""

        connection = None

    return _accept(self, listener, Told())  # type: ignore[arg-type]  # that is the fault


_read_request = Connection._read_request


def answered_for_ever(self: Connection, ready: list[Any]) -> Any:
    answered = self._answered
    exchange = _read_request(self, ready)
    self._answered = answered
    return exchange


def enrol_always(self: Connection) -> None:
    self.enrol()
    self.worker.run_first(self.pump(to_the_end=True))


def accept_without_reading_again(self: Connection) -> None:
    ready: list[Any] = []
    exchange = self._read_request(ready)
    self.enrol()
    if exchange is not None:
        exchange.run()
    self.worker.run_first(ready)


def found_before_registered(self: Worker, connection: Connection) -> None:
    connection.registered = True
    self._connections[connection.descriptor] = connection
    self._epoll.register(connection.descriptor, worker_module.WATCHED)


def cut_by_number(self: Connection) -> None:
    self._dead = self._special = True
    sock = socket.socket(fileno=os.dup(self.descriptor))
    sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def close_without_locks(self: Connection) -> None:
    if self._special or self._closes:
        self._end_if_over()


# Answers.


def watch_for_ever(self: Sending, wanted: bool) -> None:
    if wanted and not self._watching_output:
        self._watching_output = True
        self.worker.watch_output(self, True)


_send = Sending.send


def send_in_parts(self: Sending, event: events.Event, last: bool) -> None:
    if not isinstance(event, events.WholeAnswer):
        _send(self, event, last)
        return
    number = event.request_id
    _send(self, events.Response(number, event.status, event.headers), False)
    _send(self, events.ResponseBody(number, event.data or b" "), False)
    _send(self, events.EndOfResponse(number), True)


class NoLock:
    """A lock that keeps nobody out."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


_init = Connection.__init__


def without_a_lock(self: Connection, *arguments: Any) -> None:
    _init(self, *arguments)
    self._lock = NoLock()  # type: ignore[assignment]  # that is the fault


def wait_always(self: Sending, backlog: Backlog, end: int, mine: int, last: bool) -> None:
    self._wait_until_sent(backlog, end)


def give_up_whatever_is_there(self: Sending) -> bool:
    self.give_up()
    return True


def send_file_as_if_whole(self: Backlog, sock: socket.socket, piece: events.FileRange) -> None:
    count = os.sendfile(sock.fileno(), piece.descriptor, piece.offset, piece.count)
    self.sent += count or piece.count
    self.buffers.popleft()
    if 0 < count < piece.count:
        rest = events.FileRange(piece.descriptor, piece.offset + count, piece.count - count)
        self.buffers.appendleft(rest)


def send_any_descriptor(self: Exchange, filelike: Any) -> tuple[int, int, int]:
    self._file = os.dup(filelike.fileno())
    return self._file, filelike.tell(), os.fstat(self._file).st_size - filelike.tell()


def owe_for_ever(self: Sending) -> None:
    with self._lock:
        if self._backlog is not None:
            self._send_backlog(self._backlog)


# The main thread.


def drain_at_once(self: Worker) -> None:
    self.draining = True
    self._stopped = True


_yields = Worker._yields


def yield_and_close(self: Worker, *arguments: Any) -> bool:
    if _yields(self, *arguments):
        for connection in list(self._connections.values()):
            connection.give_up()
            connection._close_when_over()
        return True
    return False


def busy_every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "BUSY_LOG_SECONDS", 0.0)


# Memory.


_run = Exchange.run


def with_a_circle(self: Exchange) -> None:
    _run(self)
    self.__dict__["itself"] = self


TWO = {"threads": 2}

ATTEMPTS = 10

CLAUSES = [
    Clause(
        "A recv that filled its buffer is repeated.",
        lines.test_a_read_that_filled_its_buffer_is_repeated,
        {},
        replaced(Connection, "_read_request", read_a_head_once),
    ),
    Clause(
        "A recv that filled its buffer is repeated.",
        lines.test_a_read_that_filled_the_buffer_for_bodies_is_repeated,
        {},
        replaced(Connection, "_read", read_once),
    ),
    Clause(
        "After a hang-up it is read to the end.",
        lines.test_data_and_the_hang_up_behind_it_in_one_edge,
        {},
        replaced(Connection, "_read", read_to_the_first_short_one),
    ),
    Clause(
        "When it is read again because of `_pending`, it is read to the end.",
        lines.test_a_hang_up_that_comes_while_another_thread_reads,
        {},
        replaced(Connection, "_read", read_to_the_first_short_one),
    ),
    Clause(
        "The timer's shutdown never meets a descriptor that was closed and used again.",
        lines.test_nothing_is_done_on_a_number_that_belongs_to_another_connection,
        {},
        replaced(Connection, "_cut", cut_by_number),
    ),
    Clause(
        "The timer's shutdown and the close share a lock.",
        lines.test_a_connection_is_closed_under_both_its_locks,
        {},
        replaced(Connection, "_close_when_over", close_without_locks),
    ),
    Clause(
        "The read lock does not cover the application: an abort is seen.",
        contract.test_an_abort_wakes_the_application_that_reads_the_body,
        TWO,
        replaced(wsgi, "run", under_the_read_lock),
    ),
    Clause(
        "The read lock does not cover the application: a disconnect is seen.",
        contract.test_a_peer_that_vanishes_in_an_upload_wakes_the_application,
        TWO,
        replaced(wsgi, "run", under_the_read_lock),
    ),
    Clause(
        "The read lock does not cover the application: another request is seen.",
        lines.test_requests_are_read_while_an_application_runs_for_the_same_connection,
        {},
        replaced(wsgi, "run", under_the_read_lock),
    ),
    Clause(
        "`_pending` is looked at after unlocking.",
        lines.test_bytes_that_come_before_the_read_lock_is_let_go_are_read,
        {},
        replaced(Connection, "pump", pump_once),
    ),
    Clause(
        "`_pending` is set before trying to lock.",
        lines.test_bytes_that_come_before_the_read_lock_is_let_go_are_read,
        {},
        pending_set_late,
    ),
    Clause(
        "`_pending` is looked at after unlocking, in the short way too.",
        lines.test_bytes_that_come_before_the_first_request_is_handed_out_are_read,
        {},
        replaced(Connection, "serve", serve_without_looking_again),
    ),
    Clause(
        "`_pending` is looked at by whoever held the read lock in order to close.",
        lines.test_bytes_that_come_while_the_close_is_considered_are_read,
        {},
        replaced(Connection, "_close_when_over", close_without_looking_again),
    ),
    *(
        Clause(
            "A thread that waits for a body waits on the descriptor.",
            lines.test_who_waits_for_a_body_waits_on_the_socket,
            {"threads": threads},
            replaced(Connection, "_wait_readable", wait_for_the_wake_only),
        )
        for threads in (1, 2)
    ),
    Clause(
        "A thread that waits for a body waits on its wake-up.",
        lines.test_who_waits_for_a_body_hears_of_it_from_who_read_it,
        {},
        replaced(Connection, "_wait_readable", wait_for_the_descriptor_only),
    ),
    Clause(
        "Who makes room reads again.",
        lines.test_who_makes_room_reads_again,
        {},
        replaced(Connection, "made_room", nothing),
    ),
    Clause(
        "Who ends a request whose body was full reads on.",
        stops.test_what_lies_behind_a_body_that_filled_up_is_read_when_its_request_has_ended,
        TWO,
        replaced(Connection, "_after", end_without_reading_on),
    ),
    Clause(
        "That reading has stopped is forgotten when there is nothing to wait for.",
        stops.test_after_a_body_that_filled_up_the_next_answer_does_not_stop_reading,
        {},
        replaced(Connection, "_is_blocked", blocked_until_another_request_comes),
    ),
    Clause(
        "Who makes room while reading is about to stop is noticed.",
        stops.test_room_that_is_made_while_reading_is_about_to_stop_is_not_overlooked,
        {},
        replaced(Connection, "_is_blocked", blocked_said_last),
    ),
    Clause(
        "Who waits for a body sends what is owed.",
        stops.test_what_is_owed_is_sent_while_the_only_thread_waits_for_a_body,
        {},
        replaced(Connection, "_wait_readable", wait_without_sending),
    ),
    *(
        Clause(
            "What cannot be read is not late.",
            test,
            {},
            replaced(Connection, "_excuse", nothing),
        )
        for test in (
            stops.test_a_head_that_cannot_be_read_for_an_unread_answer_is_not_late,
            stops.test_a_head_that_cannot_be_read_for_a_full_body_is_not_late,
            stops.test_a_body_that_cannot_be_read_for_an_unread_answer_is_not_slow,
        )
    ),
    *(
        Clause(
            "Each head has a time of its own.",
            test,
            {},
            replaced(Connection, "_set_deadline", one_deadline_for_all_heads),
        )
        for test in (
            test_deadlines.test_heads_that_overlap_have_the_whole_time_each,
            test_deadlines.test_a_head_that_begins_before_another_is_complete_is_cut_off_when_its_own_time_is_over,
        )
    ),
    Clause(
        "EPOLLOUT is watched while a tail exists.",
        lines.test_writing_is_watched_only_while_a_tail_waits,
        {},
        replaced(Sending, "_watch_output", nothing),
    ),
    Clause(
        "EPOLLOUT is watched only while a tail exists.",
        lines.test_writing_is_watched_only_while_a_tail_waits,
        {},
        replaced(Sending, "_watch_output", watch_for_ever),
    ),
    Clause(
        "Complete requests beyond the first from one read go to free threads.",
        contract.test_requests_sent_together_on_one_connection_run_at_the_same_time,
        {},
        replaced(Worker, "run_first", run_all_here),
    ),
    Clause(
        "Bodies of multiplexed requests are bounded and spool beyond it.",
        lines.test_bodies_that_share_a_connection_wait_in_files,
        {},
        replaced(Exchange, "on_event", keep_all_in_memory),
    ),
    Clause(
        "An abort wakes the reader.",
        test_body.test_whatever_ends_the_waiting_wakes_who_waits,
        {"spool": Spool(0, "/"), "wake": os.eventfd(0, os.EFD_NONBLOCK), "what": "abort"},
        replaced(Body, "_wake", nothing),
    ),
    Clause(
        "The main thread notices what is late while all threads sleep.",
        lines.test_a_late_head_is_noticed_while_every_thread_sleeps,
        {},
        replaced(Worker, "_patience", lambda self: 60.0),
    ),
    Clause(
        "A worker over its share pauses accepting.",
        lines.test_who_has_more_than_its_share_leaves_connections_to_others_and_closes_none,
        {},
        replaced(Worker, "_yields", lambda *_: False),
    ),
    Clause(
        "A worker over its share closes no kept connection.",
        lines.test_who_has_more_than_its_share_leaves_connections_to_others_and_closes_none,
        {},
        replaced(Worker, "_yields", yield_and_close),
    ),
    Clause(
        "A draining worker answers what arrives.",
        lines.test_a_draining_worker_answers_what_arrives_and_then_closes,
        {},
        replaced(Worker, "_drain", drain_at_once),
    ),
    Clause(
        "A draining worker closes what it has answered.",
        lines.test_a_draining_worker_answers_what_arrives_and_then_closes,
        {},
        replaced(Connection, "close_if_idle", nothing),
    ),
    Clause(
        "A draining worker closes who says nothing.",
        test_deadlines.test_a_connection_that_waits_to_be_accepted_and_says_nothing_does_not_hold_up_the_stop,
        TWO,
        replaced(Connection, "close_if_idle", nothing),
    ),
    *(
        Clause(
            "A draining worker knows of what is just being accepted.",
            test_deadlines.test_a_connection_that_is_accepted_as_the_stop_begins_is_answered_or_closed,
            {"speaks": speaks},
            replaced(Worker, "_accept", accept_and_then_tell),
        )
        for speaks in (True, False)
    ),
    Clause(
        "GET_VALUES is answered.",
        lines.test_values_are_told_to_who_asks,
        {},
        replaced(Sending, "_flush", owe_for_ever),
    ),
    Clause(
        "All threads busy is logged.",
        lines.test_that_all_threads_are_busy_is_logged_once_with_what_they_do,
        {},
        replaced(Worker, "_log_busy", nothing),
    ),
    Clause(
        "All threads busy is logged once a minute.",
        lines.test_that_all_threads_are_busy_is_logged_once_with_what_they_do,
        {},
        busy_every_second,
    ),
    Clause(
        "All threads busy is logged with what they do.",
        lines.test_that_all_threads_are_busy_is_logged_once_with_what_they_do,
        {},
        replaced(Sending, "activity", lambda self: []),
    ),
    *(
        Clause(
            "A connection that does not stay is never registered.",
            lines.test_only_connections_that_stay_are_registered,
            {"protocol": protocol},
            replaced(Connection, "on_accept", enrol_always),
        )
        for protocol in ("fcgi", "scgi")
    ),
    Clause(
        "A connection that stays is registered.",
        lines.test_a_kept_connection_is_registered_once,
        {},
        replaced(Connection, "enrol", nothing),
    ),
    Clause(
        "A short answer leaves in one write.",
        lines.test_a_short_answer_leaves_in_one_write,
        {"size": 7000, "protocol": "fcgi"},
        replaced(Sending, "send", send_in_parts),
    ),
    Clause(
        "Bytes of two answers never mix inside a record.",
        lines.test_an_answer_waits_for_the_rest_of_another_ones_record,
        {},
        replaced(Connection, "__init__", without_a_lock),
    ),
    Clause(
        "Files go by sendfile.",
        lines.test_a_file_is_sent_by_the_kernel,
        {},
        replaced(Exchange, "_file_range", nothing),
    ),
    *(
        Clause(
            "Only a file's own bytes go by sendfile.",
            contract.test_a_wrapped_file_is_sent_as_reading_it_would_give_it,
            {"threads": 2, "opened": opened},
            replaced(Exchange, "_file_range", send_any_descriptor),
        )
        for opened in (contract._gzipped, contract._of_the_system)
    ),
    *(
        Clause(
            "An answer that breaks off ends with a reset, on a kept connection too.",
            contract.test_an_answer_that_breaks_off_ends_with_a_reset,
            {"threads": 2, "before": before},
            replaced(Connection, "_read_request", answered_for_ever),
        )
        for before in (1, 2)
    ),
    Clause(
        "A file that becomes shorter ends the connection visibly.",
        lines.test_a_file_that_becomes_shorter_does_not_pass_for_a_whole_one,
        TWO,
        replaced(Backlog, "_send_file", send_file_as_if_whole),
    ),
    Clause(
        "A finished answer's tail frees its thread.",
        lines.test_a_finished_answer_that_is_not_read_holds_no_thread,
        {},
        replaced(Sending, "_wait_or_leave", wait_always),
    ),
    Clause(
        "Who has taken everything is not cut to make room.",
        lines.test_a_reader_that_takes_the_rest_as_it_is_chosen_to_be_cut_goes_on,
        {},
        replaced(Sending, "give_up_tail", give_up_whatever_is_there),
    ),
    *(
        Clause(
            "An edge between registering and being found is not lost.",
            lines.test_an_edge_before_the_connection_can_be_found_is_not_lost,
            {"first": first},
            replaced(Connection, "on_accept", accept_without_reading_again),
        )
        for first in ("whole", "half")
    ),
    Clause(
        "A connection is registered before another thread can find it.",
        lines.test_nobody_finds_a_connection_before_it_is_registered,
        {},
        replaced(Worker, "register", found_before_registered),
    ),
    Clause(
        "An answer may end while another thread reads.",
        lines.test_an_answer_may_end_while_another_thread_looks_for_bodies,
        {},
        replaced(Connection, "_read", look_at_a_changing_dictionary),
    ),
    Clause(
        "That a connection is dead is not forgotten by who sends on it.",
        lines.test_a_reset_that_is_read_while_the_last_bytes_leave_closes_the_connection,
        {},
        replaced(Sending, "_reckon", reckon_once),
    ),
    Clause(
        "An event during the last look before an eviction is not lost.",
        lines.test_a_request_that_comes_while_its_connection_is_considered_for_eviction_is_answered,
        {},
        replaced(Connection, "evict", evict_without_looking_again),
    ),
    Clause(
        "A request leaves nothing to the garbage collector.",
        lines.test_requests_leave_nothing_to_the_garbage_collector,
        {"keep": True},
        replaced(Exchange, "run", with_a_circle),
    ),
]


@pytest.mark.filterwarnings("ignore")  # a test that fails half-way leaves sockets and threads
@pytest.mark.parametrize("clause", CLAUSES, ids=lambda each: f"{each.line} {each.test.__name__}")
def test_the_test_of_each_line_notices_a_fault(
    clause: Clause, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = inspect.getmodule(clause.test)
    assert isinstance(module, ModuleType)
    for each in (live, module):
        monkeypatch.setattr(each, "PATIENCE", PATIENCE, raising=False)
    clause.fault(monkeypatch)
    arguments = dict(clause.arguments)
    for name in inspect.signature(clause.test).parameters:
        if name not in arguments:
            arguments[name] = request.getfixturevalue(name)
    before = set(threading.enumerate())
    # A fault that loses a race only now and then need not show at the first attempt.
    for _ in range(ATTEMPTS):
        try:
            clause.test(**arguments)
        except (AssertionError, OSError, errors.GatewayError):
            break
    else:
        pytest.fail("the test passes although the fault is there")
    _tidy(before)


def _tidy(before: set[threading.Thread]) -> None:
    """Wait for the threads that the failed test has left, and close its sockets."""
    deadline = time.monotonic() + 2 * PATIENCE
    for thread in set(threading.enumerate()) - before:
        thread.join(max(0.0, deadline - time.monotonic()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
