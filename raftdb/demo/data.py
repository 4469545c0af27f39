"""Real data: the world's airports (PyPI package airportsdata, MIT licence)."""

from __future__ import annotations

from typing import Any

import airportsdata

from raftdb.client import Connection

BATCH_ROWS = 2_000

_TABLE = (
    "CREATE TABLE airports (icao TEXT PRIMARY KEY, iata TEXT, name TEXT NOT NULL, city TEXT,"
    " subd TEXT, country TEXT NOT NULL, elevation REAL, lat REAL NOT NULL, lon REAL NOT NULL,"
    " tz TEXT) WITHOUT ROWID",
    "CREATE INDEX airports_by_country ON airports (country, city)",
    "CREATE INDEX airports_by_iata ON airports (iata) WHERE iata <> ''",
    "CREATE VIRTUAL TABLE airports_text USING fts5 (name, city, country, icao UNINDEXED)",
)
_COLUMNS = ("icao", "iata", "name", "city", "subd", "country", "elevation", "lat", "lon", "tz")


def load_airports(connection: Connection) -> list[str]:
    """Create the tables, load them in batches, build the full-text index. Returns ICAO codes."""
    for statement in _TABLE:
        connection.execute(statement)
    airports: Any = airportsdata.load("ICAO")
    rows = [tuple(airport[column] for column in _COLUMNS) for airport in airports.values()]
    marks = ", ".join("?" for _ in _COLUMNS)
    insert = f"INSERT INTO airports ({', '.join(_COLUMNS)}) VALUES ({marks})"
    for first in range(0, len(rows), BATCH_ROWS):
        connection.executemany(insert, rows[first : first + BATCH_ROWS])
    connection.execute(
        "INSERT INTO airports_text (rowid, name, city, country, icao)"
        " SELECT row_number() OVER (ORDER BY icao), name, city, country, icao FROM airports"
    )
    return sorted(airports)
