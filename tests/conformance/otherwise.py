"""What raftdb's DB-API does otherwise than `sqlite3`, on purpose: pattern of tests, and the reason.

The first pattern that fits counts. docs/client.md says the same to users.
"""

_FUNCTIONS = "no functions, aggregates or collations in Python: they run on one machine only"
_CLASSES = (
    "errors are classed as PEP 249 has them: wrong SQL is a ProgrammingError, a closed connection"
    " or a wrong argument an InterfaceError"
)
_FILES = "connect takes a cluster's URL, not a file; its options are raftdb's own"
_FACTORIES = "no factories of connections, cursors or texts: row_factory makes rows"
_CONVERTERS = "no converters of columns; no adapters of the exact types int, float, str and bytes"
_COMMITS = "no isolation_level: each request is committed, unless BEGIN or autocommit=False"
_HOOKS = "no callbacks into SQLite: it runs on the nodes"
_LIMITS = "limits are the cluster's, not a connection's"

OTHERWISE: dict[str, str] = {
    "test_dbapi.BlobTests.*": "no blobopen: a value is read and written as a whole",
    "test_dbapi.SerializeTests.*": "no serialize: raftdb restore makes a plain file",
    "test_dump.*": "no iterdump: raftdb restore makes a plain SQLite file",
    "test_backup.*": "no backup: the archive and raftdb restore do that",
    "test_userfunctions.*": _FUNCTIONS,
    "test_hooks.CollationTests.*": _FUNCTIONS,
    "test_hooks.*": _HOOKS,
    "test_types.DeclTypesTests.*": _CONVERTERS,
    "test_types.ColNamesTests.*": _CONVERTERS,
    "test_types.DateTimeTests.*": _CONVERTERS,
    "test_types.BinaryConverterTests.*": _CONVERTERS,
    "test_types.ObjectAdaptationTests.*": _CONVERTERS,
    "test_types.SqliteTypeTests.test_string_with_surrogates": "a DataError, not a Unicode error",
    "test_types.SqliteTypeTests.test_too_large_int": "a DataError, not an OverflowError",
    "test_factory.ConnectionFactoryTests.*": _FACTORIES,
    "test_factory.CursorFactoryTests.*": _FACTORIES,
    "test_factory.TextFactoryTests*": _FACTORIES,
    "test_factory.RowFactoryTestsBackwardsCompat.*": _FACTORIES,
    "test_factory.RowFactoryTests.test_fake_cursor_class": _FACTORIES,
    "test_factory.RowFactoryTests.test_sqlite_row_hash_cmp": "rows compare as tuples do",
    "test_factory.RowFactoryTests.test_sqlite_row_index": "an index that is none is a TypeError",
    "test_transactions.*": _COMMITS,
    "test_dbapi.OpenTests.*": _FILES,
    "test_dbapi.UninitialisedConnectionTests.*": _FILES,
    "test_dbapi.MultiprocessTests.*": _FILES,
    "test_dbapi.ConnectionTests.test_failed_open": _FILES,
    "test_dbapi.ConnectionTests.test_connection_*reinit": _FILES,
    "test_dbapi.ConnectionTests.test_connection_init_*_isolation_level*": _COMMITS,
    "test_dbapi.ConnectionTests.test_connection_limits": _LIMITS,
    "test_dbapi.ConnectionTests.test_connection_bad_limit_category": _LIMITS,
    "test_dbapi.ConnectionTests.test_connection_config": "its switches are SQLite's, on the nodes",
    "test_dbapi.ConnectionTests.test_connect_positional_arguments": _FILES,
    "test_dbapi.ConnectionTests.test_connection_signature": "a connection is not called",
    "test_dbapi.ConnectionTests.test_connection_resource_warning": (
        "nothing is open before the first request; then the sockets warn"
    ),
    "test_dbapi.CursorTests.test_execute_named_param_and_sequence": "accepted, without a warning",
    "test_dbapi.ModuleTests.test_deprecated_version": "there is no such name to warn of",
    "test_regression.RegressionTests.test_auto_commit": _COMMITS,
    "test_regression.RegressionTests.test_table_lock_cursor_replace_stmt": (
        "with closes the connection: transaction() is the other one"
    ),
    "test_dbapi.ConnectionTests.test_in_transaction": _COMMITS,
    "test_dbapi.ConnectionTests.test_interrupt*": "it is called cancel",
    "test_dbapi.ConnectionTests.test_use_after_close": _CLASSES,
    "test_dbapi.ClosedConTests.test_closed_c[ou][nr]_*": _CLASSES,
    "test_dbapi.ClosedConTests.test_closed_call": "a connection is not called",
    "test_dbapi.ClosedConTests.test_closed_create_*": _FUNCTIONS,
    "test_dbapi.ClosedConTests.*": _HOOKS,
    "test_dbapi.ClosedCurTests.*": _CLASSES,
    "test_dbapi.CursorTests.test_cursor_wrong_class": _FACTORIES,
    "test_dbapi.CursorTests.test_execute_dict_mapping_mapping": (
        "a mapping is sent as it is: what it makes up when asked is not known"
    ),
    "test_dbapi.CursorTests.test_execute_illegal_sql": _CLASSES,
    "test_dbapi.CursorTests.test_execute_*wrong_sql_arg": _CLASSES,
    "test_dbapi.CursorTests.test_execute_multiple_statements": "the same error in other words",
    "test_dbapi.CursorTests.test_execute_non_iterable": _CLASSES,
    "test_dbapi.CursorTests.test_execute_too_many_params": _LIMITS,
    "test_dbapi.CursorTests.test_execute_with_appended_comments": (
        "SQLite itself finds '/*' at the very end to be no comment"
    ),
    "test_dbapi.CursorTests.test_rowcount_vaccuum": "VACUUM is refused: docs/sql.md",
    "test_dbapi.CursorTests.test_total_changes": "each result tells its own: rowcount",
    "test_dbapi.ExtensionTests.test_cursor_executescript_as_bytes": _CLASSES,
    "test_dbapi.ExtensionTests.test_cursor_executescript_too_large_script": _LIMITS,
    "test_dbapi.ExtensionTests.test_cursor_executescript_tx_control": (
        "within a transaction a script is part of it, and does not commit it first"
    ),
    "test_dbapi.ExtensionTests.test_cursor_executescript_with_null_characters": _CLASSES,
    "test_dbapi.ExtensionTests.test_cursor_executescript_with_surrogates": (
        "a DataError, not a Unicode error"
    ),
    "test_dbapi.ExtensionTests.test_script_*error*": _CLASSES,
    "test_dbapi.ModuleTests.test_complete_statement": "the shell splits scripts by itself",
    "test_dbapi.ModuleTests.test_disallow_instantiation": "there are no statement objects",
    "test_dbapi.ModuleTests.test_error_code_on_exception": _FILES,
    "test_dbapi.ModuleTests.test_extended_error_code_on_exception": (
        "with closes the connection; the code itself is the same"
    ),
    "test_dbapi.ModuleTests.test_shared_cache_deprecated": _FILES,
    "test_dbapi.SqliteOnConflictTests.test_on_conflict_rollback_without_transaction": _COMMITS,
    "test_dbapi.ThreadTests.*": "a connection may move between threads, one at a time",
    "test_regression.RecursiveUseOfCursors.*": _CONVERTERS,
    "test_regression.RegressionTests.test_bind_mutating_list": _CONVERTERS,
    "test_regression.RegressionTests.test_bpo37347": _HOOKS,
    "test_regression.RegressionTests.test_collation": _FUNCTIONS,
    "test_regression.RegressionTests.test_commit_cursor_reset": _COMMITS,
    "test_regression.RegressionTests.test_connection_constructor_call_check": _FACTORIES,
    "test_regression.RegressionTests.test_cursor_constructor_call_check": _FACTORIES,
    "test_regression.RegressionTests.test_custom_cursor_object_crash_gh_99886": _FACTORIES,
    "test_regression.RegressionTests.test_convert_timestamp_microsecond_padding": _CONVERTERS,
    "test_regression.RegressionTests.test_error_msg_decode_error": "text is UTF-8, always",
    "test_regression.RegressionTests.test_executescript_step_through_select": _FUNCTIONS,
    "test_regression.RegressionTests.test_*isolation_level*": _COMMITS,
    "test_regression.RegressionTests.test_large_sql": _LIMITS,
    "test_regression.RegressionTests.test_null_character": "the same error in other words",
    "test_regression.RegressionTests.test_pragma_schema_version": _CONVERTERS,
    "test_regression.RegressionTests.test_recursive_cursor_use": (
        "executemany takes all its rows before it sends any"
    ),
    "test_regression.RegressionTests.test_statement_reset": _FILES,
    "test_regression.RegressionTests.test_surrogates": "a connection is not called",
    "test_regression.RegressionTests.test_table_lock_cursor_non_readonly_select": _FUNCTIONS,
    "test_regression.RegressionTests.test_type_map_usage": _CONVERTERS,
}
