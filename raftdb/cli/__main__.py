"""`python -m raftdb.cli` is `raftdb`."""

from raftdb.cli import main

if __name__ == "__main__":
    main()
