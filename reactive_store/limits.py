"""Every number that bounds something, in one frozen value that is passed in.

Source: Convex's documented limits and the defaults of its open server (docs/reference/limits.md).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]

_KIB = 1024
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one deployment allows. Units are in the names; more than the number is an error."""

    # Values and documents (structure). These are facts of the format: clients enforce them too.
    document_bytes: int = _MIB
    value_bytes: int = 32 * _MIB
    value_nesting: int = 64
    document_nesting: int = 16
    array_elements: int = 8192
    object_fields: int = 1024
    field_name_chars: int = 1024
    identifier_chars: int = 64

    # One transaction: a query or mutation with everything it calls.
    read_bytes: int = 16 * _MIB
    read_documents: int = 32_000
    read_intervals: int = 4096
    written_bytes: int = 16 * _MIB
    written_documents: int = 16_000

    # One function call.
    arguments_bytes: int = 16 * _MIB
    result_bytes: int = 16 * _MIB
    nested_calls: int = 8
    log_lines: int = 256
    log_line_chars: int = 32_768
    error_message_bytes: int = 65_536
    query_operators: int = 256
    compute_seconds: float = 1.0  # time a query or mutation may compute without yielding
    mutation_seconds: float = 60.0  # whole mutation on a socket, retries included
    action_seconds: float = 600.0

    # Pagination.
    page_items: int = 32_000

    # Commits.
    conflict_retries: int = 4  # optimistic attempts before a mutation runs alone
    batch_documents: int = 4096  # documents in one durable write
    pending_commits: int = 10_000  # accepted but not yet durable; more wait
    write_log_commits: int = 20_000  # recent commits kept for conflict checks
    write_log_bytes: int = 64 * _MIB  # what those may hold; older ones go first
    known_sessions: int = 20_000  # whose newest mutation is remembered; others cost a look

    # History.
    retention_seconds: float = 300.0  # how far back reads of the past work
    request_record_seconds: float = 14 * 24 * 3600.0  # exactly-once records
    trim_rows: int = 2000  # versions and entries forgotten in one durable write

    # The data files.
    memtable_bytes: int = 64 * _MIB  # durable in the log, not yet in the tables; more waits
    page_cache_bytes: int = 64 * _MIB  # of each of the two connections
    mapped_bytes: int = 1024 * _MIB  # of the file read through the memory map

    # Sockets.
    message_bytes: int = 64 * _MIB
    pending_mutations: int = 1000
    running_actions: int = 1000
    unsent_transitions: int = 2
    unsent_answers: int = 16  # of mutations and actions; meanwhile no more of them begin
    session_queries: int = 10_000  # live queries of one socket
    chunk_bytes: int = 5_000_000
    ping_seconds: float = 15.0
    silence_seconds: float = 120.0

    # HTTP.
    body_bytes: int = 16 * _MIB + 2000
    head_seconds: float = 15.0  # for the head of a request, from when the connection is idle
    request_seconds: float = 300.0
    concurrent_requests: int = 128

    # Definitions.
    indexes_per_table: int = 64
    index_fields: int = 15  # besides the automatic _creationTime
    index_filter_fields: int = 16  # of one search or vector index
    vector_dimensions: int = 4096
    tables: int = 10_000
