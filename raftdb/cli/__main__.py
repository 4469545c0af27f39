"""`python -m raftdb.cli` is `raftdb`."""

from raftdb.cli.app import main

if __name__ == "__main__":
    main()
