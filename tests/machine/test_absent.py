"""What stands in for a damaged database answers everything that a Machine is asked."""

from __future__ import annotations

from raftdb.base.ids import Index, Term
from raftdb.machine import AbsentMachine, Machine
from tests.machine.support import Database

OF_ANY = {"absent", "copied", "create", "open", "install", "is_read_only", "capture", "wal_bytes"}
OF_ANY |= {"settings"}
"""Needs no database, or goes through what is overridden."""


def test_every_public_method_has_an_answer_without_a_database() -> None:
    public = {name for name in vars(Machine) if not name.startswith("_")}
    missing = public - set(vars(AbsentMachine)) - OF_ANY
    assert not missing, "without a database these would reach for one"


def test_it_has_every_public_attribute_of_a_machine(database: Database) -> None:
    machine = AbsentMachine((Index(7), Term(2)), None)
    public = {name for name in vars(database.machine) if not name.startswith("_")}
    assert public <= set(vars(machine))
    assert machine.settings == {}


def test_it_knows_what_lies_below_the_log_and_nothing_more() -> None:
    machine = AbsentMachine((Index(7), Term(2)), None)
    assert machine.applied() == (7, 2)
    assert machine.copied() is None
    assert machine.wal_bytes() == 0
    assert machine.durable_index == 0
    assert machine.absent
    assert not Machine.absent
