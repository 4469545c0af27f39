"""sqllogictest files against raftdb and against the bundled SQLite: both must say the same."""
