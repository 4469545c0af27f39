"""Every bound in one table. Bytes are bytes, times are in the unit that ends the name."""

from __future__ import annotations

from dataclasses import dataclass, fields

from raftdb.base.errors import ConfigError

MIB = 1 << 20
CLIENT_FRAME_BYTES_MIN = 512 * 1024
"""Results travel in pieces of half of it; what is around them has room too."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one node. What replicas must agree on (request_bytes_max and the like) is checked
    by the leader before a request is logged, never while it is applied (rule M4)."""

    sql_bytes_max: int = 1 * MIB
    parameters_max: int = 32_766
    value_bytes_max: int = 16 * MIB
    request_bytes_max: int = 32 * MIB
    statements_per_request_max: int = 10_000
    request_values_max: int = 1_000_000
    """Values (parameters, statements and their frames) in one request: bounds what a frame of
    small values takes once it is decoded."""
    result_bytes_max: int = 32 * MIB
    client_frame_bytes_max: int = 33 * MIB
    hello_frame_bytes_max: int = 4096
    peer_frame_bytes_max: int = 40 * MIB
    peer_part_bytes: int = 256 * 1024
    """A longer message to a peer travels in pieces of this size: nothing waits behind it."""
    client_connections_max: int = 1_024
    peer_connections_max: int = 128
    handshakes_max: int = 64
    """Connections of one port that have not shown their certificate yet."""
    handshakes_per_s_max: int = 500
    """Of one port. A handshake costs some 0.5 ms of the loop before anything is known of who asks
    for it: a flood of them must not drown heartbeats."""
    requests_per_connection_max: int = 1_024
    proposals_waiting_max: int = 8_192
    proposals_waiting_bytes_max: int = 64 * MIB
    queue_age_ms_max: int = 500
    """A request that would wait for longer is refused early. More than twice the round trip to a
    quorum, which every write waits for."""
    reads_waiting_max: int = 8_192
    """Reads of all clients that wait for their index, or for their turn."""
    entry_bytes_max: int = 4 * MIB
    """A log entry takes waiting requests up to this size (one larger request goes alone)."""
    entry_requests_max: int = 1_024
    append_bytes_max: int = 1 * MIB
    """Target size of one append_entries message (one larger entry goes alone)."""
    append_inflight_bytes_max: int = 16 * MIB
    """Bytes sent to one follower and not yet answered."""
    connection_buffer_bytes_max: int = 64 * MIB
    journal_segment_bytes: int = 16 * MIB
    journal_cache_bytes_max: int = 8 * MIB
    transactions_open_max: int = 64
    """Interactive transactions of one leader at the same time."""
    transaction_age_ms_max: int = 60_000
    """From BEGIN to COMMIT: its snapshot keeps the write-ahead log from being compacted."""
    transaction_idle_ms_max: int = 30_000
    transaction_work_ms_max: int = 10_000
    """What its statements took, all together: its COMMIT takes every replica about as long."""
    transaction_pages_bytes_max: int = 64 * MIB
    """Pages that it wrote, in the leader's memory."""
    transactions_bytes_max: int = 256 * MIB
    """Of all that are open together: pages that they wrote, and, counted by itself, SQL and values
    that they recorded. The requests that are tried out keep their pages in the same room."""
    transactions_idle_bytes_max: int = 16 * MIB
    """Of connections to SQLite that are kept open for the next transactions, beyond a few: to open
    and close them for each costs more than most transactions do."""
    client_requests_bytes_max: int = 256 * MIB
    """Requests of all clients, while they are received and until they are answered."""
    client_unsent_bytes_max: int = 512 * MIB
    """Answers that clients are slow to read, of all clients together."""
    reader_age_ms_max: int = 60_000
    readers_max: int = 8
    write_ms_max: int = 10_000
    cursors_max: int = 32
    """Each has a connection to SQLite, with a page cache of a few MiB, and pins a snapshot."""
    cursor_age_ms_max: int = 300_000
    cursor_idle_ms_max: int = 60_000
    fetch_rows_max: int = 10_000
    fetch_bytes_max: int = 1 * MIB
    handshake_timeout_ms: int = 5_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(
                    f"limits.{field.name} is {value!r}", hint="give a whole number of at least 1"
                )
        if self.client_frame_bytes_max < CLIENT_FRAME_BYTES_MIN:
            raise ConfigError(
                f"limits.client_frame_bytes_max is {self.client_frame_bytes_max}",
                hint=f"give at least {CLIENT_FRAME_BYTES_MIN}: pieces of results have to fit",
            )


DEFAULT_LIMITS = Limits()
