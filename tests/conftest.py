"""For all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long an example takes says something of the machine, not of raftdb.
settings.register_profile("raftdb", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("raftdb")
