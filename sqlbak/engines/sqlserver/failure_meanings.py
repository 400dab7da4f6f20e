"""What SQL Server's error numbers mean, and what mends them: the table behind failures.py.

Numbers and texts are those of sys.messages; states differ between versions and are never looked at.
"""

from __future__ import annotations

from sqlbak.engines.sqlserver.failure_meaning import CHECKDB, Meaning, meaning
from sqlbak.engines.sqlserver.failure_meanings_of_restores import RESTORE_MEANINGS
from sqlbak.errors import (
    BaseUnusable,
    FeatureUnsupported,
    LogChainBroken,
    ServerNotReady,
    ServerRefused,
    ServerUnreachable,
    TargetNotUsable,
)

__all__ = ["MEANINGS", "OS_REASONS", "URL_REASONS"]


_AGAIN = "try again; if it stays, the server's error log says more"
_OTHER_FULL = "take a full backup: sqlbak backup ITEM --type full"

MEANINGS: dict[int, Meaning] = RESTORE_MEANINGS | {
    # Logins and grants.
    229: meaning(
        "the login lacks a grant",
        "grant what the message names; docs/sql-server.md lists all that sqlbak needs",
        ServerRefused,
    ),
    262: meaning(
        "the login lacks a grant",
        "for backups: ALTER ROLE db_backupoperator ADD MEMBER [login] in the database; for "
        "restores: GRANT CREATE ANY DATABASE TO [login], or membership of dbcreator",
        ServerRefused,
    ),
    300: meaning(
        "the login lacks a grant on the server",
        "GRANT VIEW SERVER STATE TO [login]; GRANT VIEW ANY DATABASE TO [login]",
        ServerRefused,
    ),
    297: meaning(
        "the login lacks a grant",
        "docs/sql-server.md lists the grants that sqlbak needs",
        ServerRefused,
    ),
    916: meaning(
        "the login is no user of the database",
        "in the database: CREATE USER [login] FOR LOGIN [login]; "
        "ALTER ROLE db_backupoperator ADD MEMBER [login]",
        ServerRefused,
    ),
    3110: meaning(
        "the login may not restore over that database",
        "ALTER SERVER ROLE dbcreator ADD MEMBER [login]  (db_owner is not enough for RESTORE)",
        ServerRefused,
    ),
    3265: meaning(
        "only sysadmin may use virtual devices",
        "sqlbak does not use them: look what the delivery path names",
        ServerRefused,
    ),
    5011: meaning(
        "the login may not alter the database",
        "GRANT ALTER ANY DATABASE TO [login], or make it a member of dbcreator",
        ServerRefused,
    ),
    15247: meaning(
        "the login lacks a grant",
        "docs/sql-server.md lists the grants that sqlbak needs",
        ServerRefused,
    ),
    # The database itself.
    911: meaning(
        "there is no such database",
        "look at its name with: sqlbak inspect; a renamed database keeps its recovery points",
    ),
    927: meaning(
        "the database is in the middle of a restore",
        "finish it (RESTORE DATABASE … WITH RECOVERY) or drop it",
        ServerNotReady,
    ),
    942: meaning("the database is offline", "ALTER DATABASE … SET ONLINE", ServerNotReady),
    945: meaning(
        "the database cannot be opened: files, memory or disk space are missing",
        "the server's error log names what is missing",
        ServerNotReady,
    ),
    1844: meaning(
        "this edition of SQL Server cannot compress backups",
        "write compression: none, or auto",
        FeatureUnsupported,
    ),
    3021: meaning(
        "BACKUP and RESTORE do not run in a transaction",
        "this is a defect in sqlbak if its own connection was used; please report it",
    ),
    3023: meaning(
        "another backup (in an availability group: also on another replica) or a change of the "
        "database's files is running",
        "wait until it is done and try again",
    ),
    3024: meaning(
        "of master only full backups can be taken", "take a full: sqlbak backup ITEM --type full"
    ),
    3031: meaning("options contradict each other", "please report it with the lines above"),
    3032: meaning("the server does not know an option", "look whether the server's version has it"),
    3035: meaning("there is no full that a differential could build on", _OTHER_FULL, BaseUnusable),
    3036: meaning(
        "the database is a warm standby: it cannot be backed up",
        "back up its primary, or end the standby with RESTORE DATABASE … WITH RECOVERY",
        ServerNotReady,
    ),
    3041: meaning("the backup failed", "the server's error log says more"),
    3043: meaning("a page of the database is damaged on the server's disk", CHECKDB),
    976: meaning(
        "the replica's databases are not readable, and the login may not back them up unread",
        "let the secondary be read (SECONDARY_ROLE (ALLOW_CONNECTIONS = READ_ONLY)), or give the "
        "login sysadmin there",
        ServerNotReady,
    ),
    983: meaning(
        "the replica is neither primary nor secondary now, as while its group fails over",
        "it is tried again; if it stays, look at the state of the availability group",
        ServerNotReady,
    ),
    3059: meaning(
        "this replica is a secondary, which takes logs and copy-only fulls only: the group failed "
        "over, or its primary is not known",
        "it is tried again on the primary; name all servers of the group under replicas:",
        ServerNotReady,
    ),
    3062: meaning(
        "this replica is neither SYNCHRONIZED nor SYNCHRONIZING",
        "look at sys.dm_hadr_database_replica_states on it; ALTER DATABASE … SET HADR RESUME goes "
        "on where its data movement was suspended",
        ServerNotReady,
    ),
    3147: meaning(
        "tempdb cannot be backed up or restored", "add it to databases.exclude", FeatureUnsupported
    ),
    4202: meaning(
        "bulk-logged changes lie in a filegroup that is offline",
        "bring the filegroup online, then take a full backup",
        LogChainBroken,
    ),
    4208: meaning(
        "the recovery model is SIMPLE: there is no log to back up",
        "ALTER DATABASE … SET RECOVERY FULL, then a full or differential; or a policy without log",
        LogChainBroken,
    ),
    4212: meaning("of master no log can be backed up", "use a policy without log for it"),
    4214: meaning("there is no full backup that a log could follow", _OTHER_FULL, LogChainBroken),
    4215: meaning(
        "replication or change data capture holds the log back",
        "look at sys.databases.log_reuse_wait_desc",
    ),
    4219: meaning("the log chain is broken", _OTHER_FULL, LogChainBroken),
    9019: meaning(
        "the log was truncated while the backup ran", "try again; take it from the primary"
    ),
    # Where backups are written and read.
    3057: meaning(
        "the path of the backup is too long",
        "choose a shorter server_path (259 characters in all)",
    ),
    3063: meaning("the blob has as many blocks as it may have", "use more stripes"),
    3078: meaning(
        "the path or URL of the backup is malformed", "look at delivery in the policy file"
    ),
    3098: meaning("the file holds backups of another format", "move it away and try again"),
    3201: meaning("the server cannot open the backup file", ""),
    3202: meaning("the server cannot write the backup file", ""),
    3203: meaning("the server cannot read the backup file", ""),
    3204: meaning("it was aborted on the server (KILL, or its connection was lost)", _AGAIN),
    3205: meaning("there are too many backup files at once", "use fewer stripes"),
    3225: meaning(
        "this kind of credential is not given by name",
        "name the credential like the URL's container or bucket",
        ServerNotReady,
    ),
    3233: meaning(
        "the S3 credential is malformed",
        "CREATE CREDENTIAL [s3://host/bucket] WITH IDENTITY = 'S3 Access Key', "
        "SECRET = 'key id:secret'",
        ServerNotReady,
    ),
    3236: meaning(
        "the object has as many parts as it may have",
        "use more stripes: about 150 GiB in each at most",
    ),
    3238: meaning("the backup is larger than an object may be", "use more stripes"),
    3241: meaning(
        "the file is not a backup, or is damaged",
        "verify the recovery point (sqlbak verify), and restore by way of another one",
    ),
    3254: meaning("the file is empty", "verify the recovery point, or look at the delivery path"),
    3271: meaning("reading or writing failed on the server's side", _AGAIN),
    3287: meaning("the file does not hold as many backups as it should", "adopt the file again"),
    3288: meaning(
        "the server has no credential for the URL, or the login may not use it",
        "CREATE CREDENTIAL [s3://host/bucket] WITH IDENTITY = 'S3 Access Key', "
        "SECRET = 'key id:secret'; GRANT ALTER ANY CREDENTIAL TO [login]",
        ServerNotReady,
    ),
    3289: meaning(
        "the server has no credential for the URL",
        "CREATE CREDENTIAL [s3://host/bucket] WITH IDENTITY = 'S3 Access Key', "
        "SECRET = 'key id:secret'",
        ServerNotReady,
    ),
    3292: meaning("the URL cannot be used", "look at delivery.url in the policy file"),
    3293: meaning("the URL cannot be used", "look at delivery.url in the policy file"),
    3296: meaning("there is an object of that name already", _AGAIN),
    3298: meaning("the URL cannot be used", "look at delivery.url in the policy file"),
    922: meaning("the database is being recovered", "wait until it is open", ServerNotReady),
    924: meaning(
        "the database is in single-user mode, and somebody is in it",
        "ALTER DATABASE … SET MULTI_USER, or end that session",
        ServerNotReady,
    ),
    926: meaning(
        "the database is suspect",
        "restore it from the vault: sqlbak restore ITEM --to T --as NAME",
    ),
    3002: meaning("a database snapshot cannot be backed up", "leave it out: databases.exclude"),
    3009: meaning(
        "the server could not write the backup into its history (msdb); the backup itself is good",
        "look at msdb: its disk, its log, and DBCC CHECKDB (msdb)",
    ),
    3011: meaning("all backup files have to be of one kind", "please report it"),
    3033: meaning("the backup file cannot be on a removable device", "choose another server_path"),
    3042: meaning("the backup passed over damaged pages", CHECKDB),
    3044: meaning("a page header in the database is damaged", CHECKDB),
    3071: meaning("file snapshots are not for this database", "please report it"),
    3073: meaning("file snapshots are not for this database", "please report it"),
    3137: meaning("the database cannot be reverted", "restore it from the vault"),
    3181: meaning(
        "the check of the backup found too little room", "free space on the server's disks"
    ),
    3184: meaning("the backup is damaged", "verify the recovery point, and plan another way"),
    3191: meaning("the position to stop at is malformed", "please report it"),
    3206: meaning("the backup device has no name", "look at delivery in the policy file"),
    3207: meaning("a backup needs a file", "look at delivery in the policy file"),
    3217: meaning("an option has a value that is not allowed", "please report it"),
    3227: meaning(
        "a stripe is there twice, or of another backup", "adopt the right files together"
    ),
    3231: meaning("the stripes are not of one backup", "adopt the right files together"),
    3250: meaning("an option has a value that is not allowed", "please report it"),
    3253: meaning("an option has a value that is not allowed", "please report it"),
    3256: meaning(
        "the backup was never finished",
        "verify the recovery point, and restore by way of another one",
    ),
    3258: meaning("a stripe is of another backup", "adopt the right files together"),
    3262: meaning("the backup set is valid", "nothing is to be done"),
    4060: meaning(
        "the database cannot be opened by this login",
        "make the login a user of it, and look whether it is online",
        ServerRefused,
    ),
    4217: meaning("the database is read-only: its log does not grow", "nothing is to be done"),
    4319: meaning(
        "an earlier restore of another backup was interrupted in the middle",
        "go on with --resume, or begin again with --overwrite",
    ),
    4323: meaning(
        "an earlier restore passed over damage",
        "begin again from another full: sqlbak plan ITEM --to T",
    ),
    5170: meaning(
        "a file of that name is there already",
        "move it away, or say where else with --move LOGICAL=PATH",
        TargetNotUsable,
    ),
    18204: meaning("the server could not use the backup file", "its error log says more"),
    18210: meaning("the server could not use the backup file", "its error log says more"),
    # The server as a whole.
    596: meaning("somebody ended the session (KILL)", _AGAIN),
    701: meaning("the server is out of memory", "use fewer stripes and smaller transfers"),
    802: meaning("the server is out of memory", "use fewer stripes and smaller transfers"),
    845: meaning("the server waits too long for its disk", "look at its disks, and try again"),
    1205: meaning("it was chosen as a deadlock victim", _AGAIN),
    1222: meaning("another session holds a lock on the database", "wait, and try again"),
    1105: meaning("a filegroup is full", "the server's error log says which"),
    9002: meaning("the log of the database is full", "back up its log, or make room for it"),
    5061: meaning(
        "another session holds a lock on the database",
        "end the sessions that use it, and try again",
        TargetNotUsable,
    ),
    6005: meaning("the server is shutting down", "wait until it is up again", ServerUnreachable),
}

OS_REASONS: dict[int, tuple[str, str]] = {
    2: ("the file is not there", "look whether server_path and local_path are the same folder"),
    3: ("the folder is not there", "look whether server_path is right; the server sees it so"),
    5: (
        "the server's service account may not use it (on Linux also: the folder is missing)",
        "give the account that runs SQL Server read and write rights to server_path",
    ),
    32: ("another program has the file open", "keep virus scanners away from server_path"),
    39: ("the disk is full", "free space in server_path"),
    50: (
        "there is no such share, or no credential or bucket for the URL",
        "make the bucket, and CREATE CREDENTIAL [s3://host/bucket] WITH IDENTITY = "
        "'S3 Access Key', SECRET = 'key id:secret'",
    ),
    53: ("the network path was not found", "look whether the server reaches the share"),
    64: ("the network share went away", "try again when it is back"),
    80: ("the file exists already", "try again"),
    87: (
        "the device refused what was written",
        "look at the disk and the path; a bucket with object lock takes no backups of SQL Server",
    ),
    112: ("the disk is full", "free space in server_path"),
    123: ("the path is malformed", "look at server_path"),
    1117: ("the device failed", "look at the disk or the network; with S3, use more stripes"),
    1326: ("the share refused the account", "give the service account rights to the share"),
    12175: (
        "the server does not trust the certificate of the URL",
        "put the certificate into /var/opt/mssql/security/ca-certificates (or the Windows store) "
        "and restart SQL Server",
    ),
}
"""Operating system error -> what it means, what mends it."""

URL_REASONS: dict[int, tuple[str, str]] = {
    2: (
        "there is no such object",
        "look whether delivery.url is the vault, and whether somebody removed it",
    ),
    5: (
        "the store refused the key: it is wrong, has no rights there, or the clocks differ by more "
        "than 15 minutes",
        "give the key of the server's credential s3:ListBucket, s3:GetObject and s3:PutObject, and "
        "set the clocks",
    ),
    50: (
        "there is no credential for the URL, no such bucket, or the server is older than 2022",
        "make the bucket, and CREATE CREDENTIAL [s3://host/bucket] WITH IDENTITY = "
        "'S3 Access Key', SECRET = '<AccessKeyID>:<SecretKeyID>'",
    ),
    87: (
        "the store refused what was written: the bucket has object lock, into which SQL Server "
        "cannot write, or the object has more than 10,000 parts",
        "use a bucket without object lock (and replicate it), delivery.disk, or more stripes",
    ),
    1117: (
        "the store or the network failed, or the object has more than 10,000 parts",
        "try again; if it stays, use more stripes",
    ),
}
"""The same where a URL is meant; what is not here means what it always does."""
