"""Names of an archive's objects. docs/archive.md has them one by one.

archive                                       what the archive is: its id, the cluster
epochs/00000001                               a claim: whose history writes from here on
e00000001/manifests/000000000001              the chain: one item per object below, in order
e00000001/segments/<first>-<last>-<random>    entries of the log
e00000001/bases/<index>-<manifest>-<random>   a copy of the database: what its file is made of
e00000001/packs/<random>/<number>             the chunks of such a file
e00000001/notes/<manifest>-<random>           a second copy of a manifest that names no segment
e00000001/merged/<first>-<last>               what stands for these manifests, of segments made one
e00000001/pruned/<manifest>                   what retention took away, and what it kept
holds/<name>                                  a legal hold: nothing is pruned while it is there
probe/<random>                                made by who prunes, to see the store's time
"""

from __future__ import annotations

import re

__all__ = [
    "EPOCHS",
    "HOLDS",
    "ROOT",
    "base_name",
    "base_sequence",
    "claim_name",
    "folder",
    "manifest_name",
    "merged_name",
    "note_name",
    "number_of",
    "pack_name",
    "pruned_name",
    "segment_name",
]

ROOT = "archive"
EPOCHS = "epochs/"
HOLDS = "holds/"
_NUMBER = re.compile(r"[0-9]+")


def claim_name(epoch: int) -> str:
    """The claim of an epoch, from 1."""
    return f"{EPOCHS}{epoch:08d}"


def folder(epoch: int, kind: str) -> str:
    """Where objects of a kind (manifests, segments, bases, packs, pruned) of an epoch are."""
    return f"e{epoch:08d}/{kind}/"


def manifest_name(epoch: int, sequence: int) -> str:
    """The manifest `sequence`, from 1."""
    return f"{folder(epoch, 'manifests')}{sequence:012d}"


def segment_name(epoch: int, first: int, last: int, mark: bytes) -> str:
    """A segment of entries; `mark` is random, so that two uploaders never meet."""
    return f"{folder(epoch, 'segments')}{first:016d}-{last:016d}-{mark.hex()}"


def base_name(epoch: int, index: int, sequence: int, mark: bytes) -> str:
    """The description of a base copy, which was begun when the chain ended at `sequence`: whoever
    wants the newest moment need not read the chain before."""
    return f"{folder(epoch, 'bases')}{index:016d}-{sequence:012d}-{mark.hex()}"


def base_sequence(name: str) -> int:
    """The `sequence` in a base's name; 0 when it has none."""
    parts = name.rpartition("/")[2].split("-")
    return int(parts[1]) if len(parts) == 3 and parts[1].isdecimal() else 0


def merged_name(epoch: int, first: int, last: int) -> str:
    """The record that stands for manifests `first` to `last`."""
    return f"{folder(epoch, 'merged')}{first:012d}-{last:012d}"


def note_name(epoch: int, sequence: int, mark: bytes) -> str:
    """A second copy of the manifest `sequence`; `mark` is random: who adds it is not known yet."""
    return f"{folder(epoch, 'notes')}{sequence:012d}-{mark.hex()}"


def pack_name(epoch: int, mark: bytes, number: int) -> str:
    """A pack of a base copy's chunks."""
    return f"{folder(epoch, 'packs')}{mark.hex()}/{number:06d}"


def pruned_name(epoch: int, sequence: int, time_ms: int) -> str:
    """Retention's record, of a time, that the chain begins at `sequence`; the last one counts."""
    return f"{folder(epoch, 'pruned')}{sequence:012d}-{time_ms:014d}"


def number_of(name: str) -> int | None:
    """The number that the last part of a name is, or begins with; None without one."""
    match = _NUMBER.match(name.rpartition("/")[2])
    return None if match is None else int(match[0])
