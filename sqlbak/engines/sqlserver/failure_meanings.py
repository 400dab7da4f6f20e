"""What SQL Server's error numbers mean, and what mends them: the table behind failures.py.

Numbers and texts are those of sys.messages; states differ between versions and are never looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlbak.errors import (
    BaseUnusable,
    EngineError,
    FeatureUnsupported,
    LogChainBroken,
    Refused,
    ServerNotReady,
    ServerRefused,
    ServerUnreachable,
    TargetNotUsable,
)

__all__ = ["MEANINGS", "OS_REASONS", "Meaning"]


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an error number means. ``error`` None: the failure of whatever was being done."""

    what: str
    remedy: str
    error: type[EngineError | Refused] | None = None


def _of(what: str, remedy: str, error: type[EngineError | Refused] | None = None) -> Meaning:
    return Meaning(what, remedy, error)


_AGAIN = "try again; if it stays, the server's error log says more"
_CHECKDB = "run DBCC CHECKDB on the database and keep every older recovery point until it is mended"
_OTHER_FULL = "take a full backup: sqlbak backup ITEM --type full"

MEANINGS: dict[int, Meaning] = {
    # Logins and grants.
    229: _of(
        "the login lacks a grant",
        "grant what the message names; docs/sql-server.md lists all that sqlbak needs",
        ServerRefused,
    ),
    262: _of(
        "the login lacks a grant",
        "for backups: ALTER ROLE db_backupoperator ADD MEMBER [login] in the database; for "
        "restores: GRANT CREATE ANY DATABASE TO [login], or membership of dbcreator",
        ServerRefused,
    ),
    300: _of(
        "the login lacks a grant on the server",
        "GRANT VIEW SERVER STATE TO [login]; GRANT VIEW ANY DATABASE TO [login]",
        ServerRefused,
    ),
    297: _of(
        "the login lacks a grant",
        "docs/sql-server.md lists the grants that sqlbak needs",
        ServerRefused,
    ),
    916: _of(
        "the login is no user of the database",
        "in the database: CREATE USER [login] FOR LOGIN [login]; "
        "ALTER ROLE db_backupoperator ADD MEMBER [login]",
        ServerRefused,
    ),
    3110: _of(
        "the login may not restore over that database",
        "ALTER SERVER ROLE dbcreator ADD MEMBER [login]  (db_owner is not enough for RESTORE)",
        ServerRefused,
    ),
    3265: _of(
        "only sysadmin may use virtual devices",
        "sqlbak does not use them: look what the delivery path names",
        ServerRefused,
    ),
    5011: _of(
        "the login may not alter the database",
        "GRANT ALTER ANY DATABASE TO [login], or make it a member of dbcreator",
        ServerRefused,
    ),
    15247: _of(
        "the login lacks a grant",
        "docs/sql-server.md lists the grants that sqlbak needs",
        ServerRefused,
    ),
    # The database itself.
    911: _of(
        "there is no such database",
        "look at its name with: sqlbak inspect; a renamed database keeps its recovery points",
    ),
    927: _of(
        "the database is in the middle of a restore",
        "finish it (RESTORE DATABASE … WITH RECOVERY) or drop it",
        ServerNotReady,
    ),
    942: _of("the database is offline", "ALTER DATABASE … SET ONLINE", ServerNotReady),
    945: _of(
        "the database cannot be opened: files, memory or disk space are missing",
        "the server's error log names what is missing",
        ServerNotReady,
    ),
    3021: _of(
        "BACKUP and RESTORE do not run in a transaction",
        "this is a defect in sqlbak if its own connection was used; please report it",
    ),
    3023: _of(
        "another backup or a change of the database's files is running",
        "wait until it is done and try again",
    ),
    3024: _of(
        "of master only full backups can be taken", "take a full: sqlbak backup ITEM --type full"
    ),
    3031: _of("options contradict each other", "please report it with the lines above"),
    3032: _of("the server does not know an option", "look whether the server's version has it"),
    3035: _of("there is no full that a differential could build on", _OTHER_FULL, BaseUnusable),
    3036: _of(
        "the database is a warm standby: it cannot be backed up",
        "back up its primary, or end the standby with RESTORE DATABASE … WITH RECOVERY",
        ServerNotReady,
    ),
    3041: _of("the backup failed", "the server's error log says more"),
    3043: _of("a page of the database is damaged on the server's disk", _CHECKDB),
    3059: _of(
        "this replica does not take this kind of backup",
        "back up from the primary, or from a replica that is synchronized",
        ServerNotReady,
    ),
    3062: _of(
        "this replica is not synchronized",
        "wait until it is, or back up from the primary",
        ServerNotReady,
    ),
    3147: _of(
        "tempdb cannot be backed up or restored", "add it to databases.exclude", FeatureUnsupported
    ),
    4202: _of(
        "bulk-logged changes lie in a filegroup that is offline",
        "bring the filegroup online, then take a full backup",
        LogChainBroken,
    ),
    4208: _of(
        "the recovery model is SIMPLE: there is no log to back up",
        "ALTER DATABASE … SET RECOVERY FULL, then a full or differential; or a policy without log",
        LogChainBroken,
    ),
    4212: _of("of master no log can be backed up", "use a policy without log for it"),
    4214: _of("there is no full backup that a log could follow", _OTHER_FULL, LogChainBroken),
    4215: _of(
        "replication or change data capture holds the log back",
        "look at sys.databases.log_reuse_wait_desc",
    ),
    4219: _of("the log chain is broken", _OTHER_FULL, LogChainBroken),
    9019: _of("the log was truncated while the backup ran", "try again; take it from the primary"),
    # Where backups are written and read.
    3057: _of(
        "the path of the backup is too long",
        "choose a shorter server_path (259 characters in all)",
    ),
    3063: _of("the blob has as many blocks as it may have", "use more stripes"),
    3078: _of("the path or URL of the backup is malformed", "look at delivery in the policy file"),
    3098: _of("the file holds backups of another format", "move it away and try again"),
    3201: _of("the server cannot open the backup file", ""),
    3202: _of("the server cannot write the backup file", ""),
    3203: _of("the server cannot read the backup file", ""),
    3204: _of("it was aborted on the server (KILL, or its connection was lost)", _AGAIN),
    3205: _of("there are too many backup files at once", "use fewer stripes"),
    3225: _of(
        "this kind of credential is not given by name",
        "name the credential like the URL's container or bucket",
        ServerNotReady,
    ),
    3233: _of(
        "the S3 credential is malformed",
        "CREATE CREDENTIAL [s3://host/bucket] WITH IDENTITY = 'S3 Access Key', "
        "SECRET = 'key id:secret'",
        ServerNotReady,
    ),
    3236: _of(
        "the object has as many parts as it may have",
        "use more stripes: about 150 GiB in each at most",
    ),
    3238: _of("the backup is larger than an object may be", "use more stripes"),
    3241: _of(
        "the file is not a backup, or is damaged",
        "verify the recovery point (sqlbak verify), and restore by way of another one",
    ),
    3254: _of("the file is empty", "verify the recovery point, or look at the delivery path"),
    3271: _of("reading or writing failed on the server's side", _AGAIN),
    3287: _of("the file does not hold as many backups as it should", "adopt the file again"),
    3288: _of(
        "the server has no credential for the URL, or the login may not use it",
        "CREATE CREDENTIAL [s3://host/bucket] WITH IDENTITY = 'S3 Access Key', "
        "SECRET = 'key id:secret'; GRANT ALTER ANY CREDENTIAL TO [login]",
        ServerNotReady,
    ),
    3289: _of(
        "the server has no credential for the URL",
        "CREATE CREDENTIAL [s3://host/bucket] WITH IDENTITY = 'S3 Access Key', "
        "SECRET = 'key id:secret'",
        ServerNotReady,
    ),
    3292: _of("the URL cannot be used", "look at delivery.url in the policy file"),
    3293: _of("the URL cannot be used", "look at delivery.url in the policy file"),
    3296: _of("there is an object of that name already", _AGAIN),
    3298: _of("the URL cannot be used", "look at delivery.url in the policy file"),
    # What is restored.
    3101: _of(
        "the database is in use",
        "end its sessions, or let sqlbak do it with --disconnect",
        TargetNotUsable,
    ),
    3102: _of("the database is in use by this very session", "please report it"),
    3104: _of(
        "the database belongs to an availability group or a mirror",
        "take it out of the group first (ALTER AVAILABILITY GROUP … REMOVE DATABASE …), or restore "
        "under another name with --as",
        TargetNotUsable,
    ),
    3108: _of(
        "master is restored in single-user mode only",
        "docs/sql-server.md, “Restoring master”, has the steps",
        FeatureUnsupported,
    ),
    3109: _of(
        "master is restored in single-user mode only",
        "docs/sql-server.md, “Restoring master”, has the steps",
        FeatureUnsupported,
    ),
    3112: _of(
        "master is restored in one step, from a full",
        "docs/sql-server.md, “Restoring master”, has the steps",
        FeatureUnsupported,
    ),
    3117: _of(
        "the database was recovered already: nothing more can be applied to it",
        "begin again from the full: run the restore again with --overwrite",
    ),
    3118: _of(
        "the database is not there any more",
        "somebody dropped it meanwhile: run the restore again",
    ),
    3119: _of(
        "the server found problems with where the files go",
        "say where with --move LOGICAL=PATH; each file needs a path of its own",
        TargetNotUsable,
    ),
    3120: _of("the database is already past this backup", "begin again with --overwrite"),
    3132: _of(
        "a stripe of the backup is missing",
        "all files of one backup are needed together: adopt them together",
    ),
    3135: _of("the file holds another kind of backup", "verify the recovery point"),
    3136: _of(
        "the differential does not fit the full",
        "plan again without it; another backup of the database was taken in between",
    ),
    3141: _of("the backup is of another database", "restore under another name with --as"),
    3142: _of(
        "a file is there already",
        "say where else with --move LOGICAL=PATH",
        TargetNotUsable,
    ),
    3145: _of(
        "the database uses the SIMPLE recovery model: no instant inside it can be restored",
        "restore to the end of a full or differential",
    ),
    3153: _of("the database is recovered already", "nothing is to be done"),
    3154: _of(
        "another database has that name",
        "restore under another name with --as, or drop that database yourself",
        TargetNotUsable,
    ),
    3156: _of(
        "a file cannot be placed where the backup says",
        "say where with --move LOGICAL=PATH",
        TargetNotUsable,
    ),
    1834: _of(
        "a file belongs to another database",
        "say where else with --move LOGICAL=PATH",
        TargetNotUsable,
    ),
    3159: _of(
        "the tail of its log is not backed up: it would be lost",
        "take it into the vault with --tail backup, or give it up with --tail discard",
        TargetNotUsable,
    ),
    3168: _of(
        "the backup is of another version of SQL Server",
        "system databases are restored on exactly the version that they are from",
        TargetNotUsable,
    ),
    3169: _of(
        "the backup is from a newer SQL Server than this one",
        "restore on an instance of the same or a newer version: --instance NAME",
        TargetNotUsable,
    ),
    3173: _of(
        "the tail of the log is needed to reach the instant",
        "take it into the vault with --tail backup, or give it up with --tail discard",
        TargetNotUsable,
    ),
    3176: _of(
        "two files would go to the same path",
        "say where each goes with --move LOGICAL=PATH",
        TargetNotUsable,
    ),
    3180: _of("a database that is upgraded cannot be a standby", "restore it without standby"),
    3182: _of("the backup is damaged", "verify the recovery point, and plan another way"),
    3183: _of("a page in the backup is damaged", "verify the recovery point, and plan another way"),
    3186: _of("the backup is damaged", "verify the recovery point, and plan another way"),
    3187: _of("the backup holds no checksums", "it can be restored without asking for them"),
    3189: _of("the backup is damaged", "verify the recovery point, and plan another way"),
    3199: _of("the transfer size is smaller than that of the backup", "please report it"),
    3234: _of(
        "the backup has no file of that logical name",
        "the logical names stand in the recovery point: see the error of a wrong --move",
        TargetNotUsable,
    ),
    3257: _of(
        "the disk is too small for the database",
        "free space there, or say where else with --move LOGICAL=PATH",
        TargetNotUsable,
    ),
    5133: _of(
        "the folder of a file does not exist, or the service account may not look into it",
        "make it, or say where else with --move LOGICAL=PATH",
        TargetNotUsable,
    ),
    5123: _of(
        "a file of the database cannot be made there",
        "give the service account rights to the folder, or say where else with --move LOGICAL=PATH",
        TargetNotUsable,
    ),
    5149: _of("the disk is full", "free space there, or say where else with --move LOGICAL=PATH"),
    5171: _of("a file is no primary database file", "say where else with --move LOGICAL=PATH"),
    15105: _of("the operating system refused a file", "the server's error log says more"),
    33111: _of(
        "the backup is encrypted with a certificate that this server does not have",
        "restore the certificate and its private key there first: CREATE CERTIFICATE … FROM FILE",
        TargetNotUsable,
    ),
    4303: _of("more log is needed to recover", "apply the next log backup"),
    4305: _of(
        "a log before this one is missing",
        "plan again: sqlbak plan ITEM --to T; something was restored into the database meanwhile "
        "if the plan has no gap",
    ),
    4312: _of("there is a gap in the log", "plan again: sqlbak plan ITEM --to T"),
    4318: _of("the log ends too early to recover", "apply the next log backup"),
    4322: _of(
        "the log ended before the instant asked for",
        "the database waits for more log: restore to a later recovery point, or accept where it "
        "stands with RESTORE DATABASE … WITH RECOVERY",
    ),
    4326: _of("the log ends before what is restored already", "plan again"),
    4327: _of(
        "the log holds bulk-logged changes: nothing can stop inside it",
        "the database stands at the end of that log; choose an instant before or after it",
    ),
    4329: _of(
        "the log ended before the position asked for",
        "the database waits for more log: apply the next one",
    ),
    4330: _of(
        "the backup is of another recovery path than the database",
        "plan again: another restore made a fork meanwhile",
    ),
    4331: _of("files stand at different positions", "begin again with --overwrite"),
    4333: _of("the log was not restored", "begin again with --overwrite"),
    4335: _of("the database is already past the instant asked for", "begin again with --overwrite"),
    4338: _of(
        "the backup ended after the instant asked for",
        "restore by way of an older full: sqlbak plan ITEM --to T",
    ),
    4341: _of(
        "the log holds bulk-logged changes: nothing can stop inside it",
        "choose an instant before or after that log",
    ),
    4343: _of("the database is already past the instant asked for", "begin again with --overwrite"),
    4349: _of("a log before this one is missing", "plan again: sqlbak plan ITEM --to T"),
    922: _of("the database is being recovered", "wait until it is open", ServerNotReady),
    924: _of(
        "the database is in single-user mode, and somebody is in it",
        "ALTER DATABASE … SET MULTI_USER, or end that session",
        ServerNotReady,
    ),
    926: _of(
        "the database is suspect",
        "restore it from the vault: sqlbak restore ITEM --to T --as NAME",
    ),
    3002: _of("a database snapshot cannot be backed up", "leave it out: databases.exclude"),
    3011: _of("all backup files have to be of one kind", "please report it"),
    3033: _of("the backup file cannot be on a removable device", "choose another server_path"),
    3042: _of("the backup passed over damaged pages", _CHECKDB),
    3044: _of("a page header in the database is damaged", _CHECKDB),
    3071: _of("file snapshots are not for this database", "please report it"),
    3073: _of("file snapshots are not for this database", "please report it"),
    3137: _of("the database cannot be reverted", "restore it from the vault"),
    3181: _of("the check of the backup found too little room", "free space on the server's disks"),
    3184: _of("the backup is damaged", "verify the recovery point, and plan another way"),
    3191: _of("the position to stop at is malformed", "please report it"),
    3206: _of("the backup device has no name", "look at delivery in the policy file"),
    3207: _of("a backup needs a file", "look at delivery in the policy file"),
    3217: _of("an option has a value that is not allowed", "please report it"),
    3227: _of("a stripe is there twice, or of another backup", "adopt the right files together"),
    3231: _of("the stripes are not of one backup", "adopt the right files together"),
    3250: _of("an option has a value that is not allowed", "please report it"),
    3253: _of("an option has a value that is not allowed", "please report it"),
    3256: _of(
        "the backup was never finished",
        "verify the recovery point, and restore by way of another one",
    ),
    3258: _of("a stripe is of another backup", "adopt the right files together"),
    3262: _of("the backup set is valid", "nothing is to be done"),
    4060: _of(
        "the database cannot be opened by this login",
        "make the login a user of it, and look whether it is online",
        ServerRefused,
    ),
    4217: _of("the database is read-only: its log does not grow", "nothing is to be done"),
    4319: _of(
        "an earlier restore of another backup was interrupted in the middle",
        "go on with --resume, or begin again with --overwrite",
    ),
    4323: _of(
        "an earlier restore passed over damage",
        "begin again from another full: sqlbak plan ITEM --to T",
    ),
    5170: _of(
        "a file of that name is there already",
        "move it away, or say where else with --move LOGICAL=PATH",
        TargetNotUsable,
    ),
    18204: _of("the server could not use the backup file", "its error log says more"),
    18210: _of("the server could not use the backup file", "its error log says more"),
    # The server as a whole.
    596: _of("somebody ended the session (KILL)", _AGAIN),
    701: _of("the server is out of memory", "use fewer stripes and smaller transfers"),
    802: _of("the server is out of memory", "use fewer stripes and smaller transfers"),
    845: _of("the server waits too long for its disk", "look at its disks, and try again"),
    1205: _of("it was chosen as a deadlock victim", _AGAIN),
    1222: _of("another session holds a lock on the database", "wait, and try again"),
    1105: _of("a filegroup is full", "the server's error log says which"),
    9002: _of("the log of the database is full", "back up its log, or make room for it"),
    5061: _of(
        "another session holds a lock on the database",
        "end the sessions that use it, and try again",
        TargetNotUsable,
    ),
    6005: _of("the server is shutting down", "wait until it is up again", ServerUnreachable),
}

OS_REASONS: dict[int, tuple[str, str]] = {
    2: ("the file is not there", "look whether server_path and local_path are the same folder"),
    3: ("the folder is not there", "look whether server_path is right; the server sees it so"),
    5: (
        "the server's service account may not use it (on Linux also: the folder is missing; with "
        "a URL: the clocks differ)",
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
        "the store refused it: the bucket has object lock, or the object has too many parts",
        "write to a bucket without object lock, or use more stripes",
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
