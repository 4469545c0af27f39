"""raftdb: a replicated SQL database that you can pip install."""

from raftdb._version import __version__

__all__ = ["__version__"]
