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
    action_operations: int = 1000  # calls of ctx that one action has under way
    log_lines: int = 256
    log_line_chars: int = 32_768
    error_message_bytes: int = 65_536
    query_operators: int = 256
    compute_seconds: float = 1.0  # time a query or mutation may compute without yielding
    mutation_seconds: float = 60.0  # whole mutation on a socket, retries included
    action_seconds: float = 600.0

    # Pagination.
    page_items: int = 32_000

    # Vector search.
    vector_results: int = 256
    vector_filters: int = 64  # equalities of one search

    # Commits.
    conflict_retries: int = 4  # optimistic attempts before a mutation runs alone
    batch_documents: int = 4096  # documents in one durable write
    pending_commits: int = 10_000  # accepted but not yet durable; more wait
    write_log_commits: int = 20_000  # recent commits kept for conflict checks
    write_log_bytes: int = 64 * _MIB  # what those may hold; older ones go first
    known_sessions: int = 20_000  # whose newest mutation is remembered; others cost a look

    # Scheduled functions and crons.
    scheduled_functions: int = 1000  # by one mutation
    scheduled_bytes: int = 16 * _MIB  # of the arguments of those
    scheduled_call_bytes: int = 4 * _MIB  # of one's arguments; more is warned of
    scheduled_distance_seconds: float = 5 * 366 * 24 * 3600.0  # into the future, or the past
    scheduled_parallelism: int = 64  # functions that run at a time
    scheduled_record_seconds: float = 7 * 24 * 3600.0  # how long it is known how one ended
    cron_records: int = 5  # runs remembered of each cron

    # Text search.
    search_terms: int = 16  # words of a search text; the rest are ignored
    search_filters: int = 8  # equalities of one search
    search_results: int = 1024  # documents one search may read
    search_expansions: int = 64  # words a prefix stands for

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

    # Users' tokens.
    token_bytes: int = 64 * _KIB
    key_set_bytes: int = 256 * _KIB  # one answer of an issuer
    key_set_fetch_seconds: float = 10.0
    key_set_seconds: float = 3600.0  # how long keys are used at most, whatever the issuer says
    key_set_pause_seconds: float = 3.0  # between fetches of one issuer's keys, after the first few

    # HTTP actions.
    http_response_bytes: int = 20 * _MIB
    http_body_bytes: int = 20 * _MIB  # of a body that is read as a whole; streams have no limit
    http_actions: int = 1000  # that run at a time, those whose answer is being sent included
    http_wait_seconds: float = 10.0  # for one of those places

    # Environment variables.
    environment_variables: int = 512
    environment_bytes: int = 512 * _KIB  # of all names and values
    environment_name_chars: int = 256
    environment_value_bytes: int = 8 * _KIB

    # Files.
    file_bytes: int = 1024 * 1024 * _MIB  # of one; a terabyte, since Convex has no limit
    file_idle_seconds: float = 60.0  # without a byte sent or received, while one is transferred
    upload_seconds: float = 3600.0
    concurrent_uploads: int = 64
    upload_url_seconds: float = 3600.0
    abandoned_file_seconds: float = 3600.0  # until bytes that became no file are removed

    # Definitions.
    indexes_per_table: int = 64
    index_fields: int = 15  # besides the automatic _creationTime
    index_filter_fields: int = 16  # of one search or vector index
    vector_dimensions: int = 4096
    tables: int = 10_000
