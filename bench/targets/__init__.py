"""The systems under measurement, each behind the same small interface."""

from __future__ import annotations

from bench.targets.base import Cluster, Options, Target
from bench.targets.dqlite import Dqlite
from bench.targets.etcd import Etcd
from bench.targets.raftdb import Raftdb
from bench.targets.rqlite import Rqlite

ALL: dict[str, type[Target]] = {target.name: target for target in (Raftdb, Etcd, Dqlite, Rqlite)}

__all__ = ["ALL", "Cluster", "Options", "Target"]
