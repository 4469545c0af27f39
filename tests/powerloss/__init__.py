"""Power loss on real files.

A node's file operations are recorded, SQLite's included, together with what it promised; from the
record every kind of state that a file system may leave behind is built as real files; the real
recovery code opens each, and everything promised up to that moment has to be there. See
docs/testing.md, "Power loss".
"""
