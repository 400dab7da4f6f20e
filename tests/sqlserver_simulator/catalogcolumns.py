"""Columns of the larger catalog views; those of sys.master_files and sys.database_files as captured
from SQL Server 2022."""

from __future__ import annotations

from .history import columns_of
from .sqltypes import Column

DATABASES = columns_of(
    """
    name nv128 8
    database_id int 8
    source_database_id int
    owner_sid bin20
    create_date datetime 8
    compatibility_level tinyint 8
    collation_name nv128
    user_access tinyint
    user_access_desc nv60
    is_read_only bit
    is_auto_close_on bit 8
    state tinyint
    state_desc nv60
    is_in_standby bit
    is_cleanly_shutdown bit
    snapshot_isolation_state tinyint
    is_read_committed_snapshot_on bit
    recovery_model tinyint
    recovery_model_desc nv60
    is_published bit 8
    is_broker_enabled bit 8
    log_reuse_wait tinyint
    log_reuse_wait_desc nv60
    is_cdc_enabled bit 8
    is_encrypted bit
    replica_id guid
    group_database_id guid
    containment tinyint
    containment_desc nv60
    physical_database_name nv128
    """
)

_FILE_TEXT = """
    file_id int 8
    file_guid guid
    type tinyint 8
    type_desc nv60
    data_space_id int 8
    name nv128 33
    physical_name nv260 33
    state tinyint 33
    state_desc nv60
    size int 32
    max_size int 8
    growth int 8
    is_media_read_only bit 32
    is_read_only bit 32
    is_sparse bit 32
    is_percent_growth bit 32
    is_name_reserved bit 32
    is_persistent_log_buffer bit 32
    create_lsn lsn 33
    drop_lsn lsn 33
    read_only_lsn lsn 33
    read_write_lsn lsn 33
    differential_base_lsn lsn 33
    differential_base_guid guid
    differential_base_time datetime 33
    redo_start_lsn lsn 33
    redo_start_fork_guid guid
    redo_target_lsn lsn 33
    redo_target_fork_guid guid
    backup_lsn lsn 33
    """

DATABASE_FILES = columns_of(_FILE_TEXT)

_MASTER_FLAGS = {"physical_name": 8, "size": 8}

MASTER_FILES = [
    *columns_of("database_id int 8"),
    *(Column(c.name, c.type, _MASTER_FLAGS.get(c.name, c.flags)) for c in DATABASE_FILES),
    *columns_of("credential_id int"),
]

RECOVERY_STATUS = columns_of(
    """
    database_id int 8
    database_guid guid
    family_guid guid
    last_log_backup_lsn lsn
    recovery_fork_guid guid
    first_recovery_fork_guid guid
    fork_point_lsn lsn
    """
)

REQUESTS = columns_of(
    """
    session_id smallint 8
    request_id int 8
    start_time datetime 8
    status nv30 8
    command nv32 8
    database_id smallint 8
    wait_type nv60
    percent_complete real 8
    estimated_completion_time bigint 8
    total_elapsed_time int 8
    sql_handle bin64 8
    """
)

SESSIONS = columns_of(
    """
    session_id smallint 8
    login_time datetime 8
    host_name nv128
    program_name nv128
    login_name nv128 8
    status nv30 8
    database_id smallint 8
    is_user_process bit 8
    open_transaction_count int 8
    """
)
