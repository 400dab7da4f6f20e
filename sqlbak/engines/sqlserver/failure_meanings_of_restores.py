"""Error numbers that restores meet, what they mean, and what mends them (failure_meanings.py)."""

from __future__ import annotations

from sqlbak.engines.sqlserver.failure_meaning import Meaning, meaning
from sqlbak.errors import FeatureUnsupported, TargetNotUsable

__all__ = ["RESTORE_MEANINGS"]

RESTORE_MEANINGS: dict[int, Meaning] = {
    3101: meaning(
        "the database is in use",
        "end its sessions, or let sqlbak do it with --disconnect",
        TargetNotUsable,
    ),
    3102: meaning("the database is in use by this very session", "please report it"),
    3104: meaning(
        "the database belongs to an availability group or a mirror",
        "take it out of the group first (ALTER AVAILABILITY GROUP … REMOVE DATABASE …), or restore "
        "under another name with --as",
        TargetNotUsable,
    ),
    3108: meaning(
        "master is restored in single-user mode only",
        "docs/sql-server.md, “Restoring master”, has the steps",
        FeatureUnsupported,
    ),
    3109: meaning(
        "master is restored in single-user mode only",
        "docs/sql-server.md, “Restoring master”, has the steps",
        FeatureUnsupported,
    ),
    3112: meaning(
        "master is restored in one step, from a full",
        "docs/sql-server.md, “Restoring master”, has the steps",
        FeatureUnsupported,
    ),
    3117: meaning(
        "the database was recovered already: nothing more can be applied to it",
        "begin again from the full: run the restore again with --overwrite",
    ),
    3118: meaning(
        "the database is not there any more",
        "somebody dropped it meanwhile: run the restore again",
    ),
    3119: meaning(
        "the server found problems with where the files go",
        "say where with --move LOGICAL=PATH; each file needs a path of its own",
        TargetNotUsable,
    ),
    3120: meaning("the database is already past this backup", "begin again with --overwrite"),
    3132: meaning(
        "a stripe of the backup is missing",
        "all files of one backup are needed together: adopt them together",
    ),
    3135: meaning("the file holds another kind of backup", "verify the recovery point"),
    3136: meaning(
        "the differential does not fit the full",
        "plan again without it; another backup of the database was taken in between",
    ),
    3141: meaning("the backup is of another database", "restore under another name with --as"),
    3142: meaning(
        "a file is there already",
        "say where else with --move LOGICAL=PATH",
        TargetNotUsable,
    ),
    3145: meaning(
        "the database uses the SIMPLE recovery model: no instant inside it can be restored",
        "restore to the end of a full or differential",
    ),
    3153: meaning("the database is recovered already", "nothing is to be done"),
    3154: meaning(
        "another database has that name",
        "restore under another name with --as, or drop that database yourself",
        TargetNotUsable,
    ),
    3156: meaning(
        "a file cannot be placed where the backup says",
        "say where with --move LOGICAL=PATH",
        TargetNotUsable,
    ),
    1834: meaning(
        "a file belongs to another database",
        "say where else with --move LOGICAL=PATH",
        TargetNotUsable,
    ),
    3159: meaning(
        "the tail of its log is not backed up: it would be lost",
        "take it into the vault with --tail backup, or give it up with --tail discard",
        TargetNotUsable,
    ),
    3168: meaning(
        "the backup is of another version of SQL Server",
        "system databases are restored on exactly the version that they are from",
        TargetNotUsable,
    ),
    3169: meaning(
        "the backup is from a newer SQL Server than this one",
        "restore on an instance of the same or a newer version: --instance NAME",
        TargetNotUsable,
    ),
    3173: meaning(
        "the tail of the log is needed to reach the instant",
        "take it into the vault with --tail backup, or give it up with --tail discard",
        TargetNotUsable,
    ),
    3176: meaning(
        "two files would go to the same path",
        "say where each goes with --move LOGICAL=PATH",
        TargetNotUsable,
    ),
    3180: meaning("a database that is upgraded cannot be a standby", "restore it without standby"),
    3182: meaning("the backup is damaged", "verify the recovery point, and plan another way"),
    3183: meaning(
        "a page in the backup is damaged", "verify the recovery point, and plan another way"
    ),
    3186: meaning("the backup is damaged", "verify the recovery point, and plan another way"),
    3187: meaning("the backup holds no checksums", "it can be restored without asking for them"),
    3189: meaning("the backup is damaged", "verify the recovery point, and plan another way"),
    3199: meaning("the transfer size is smaller than that of the backup", "please report it"),
    3234: meaning(
        "the backup has no file of that logical name",
        "the logical names stand in the recovery point: see the error of a wrong --move",
        TargetNotUsable,
    ),
    3257: meaning(
        "the disk is too small for the database",
        "free space there, or say where else with --move LOGICAL=PATH",
        TargetNotUsable,
    ),
    5133: meaning(
        "the folder of a file does not exist, or the service account may not look into it",
        "make it, or say where else with --move LOGICAL=PATH",
        TargetNotUsable,
    ),
    5123: meaning(
        "a file of the database cannot be made there",
        "give the service account rights to the folder, or say where else with --move LOGICAL=PATH",
        TargetNotUsable,
    ),
    5149: meaning(
        "the disk is full", "free space there, or say where else with --move LOGICAL=PATH"
    ),
    5171: meaning("a file is no primary database file", "say where else with --move LOGICAL=PATH"),
    15105: meaning("the operating system refused a file", "the server's error log says more"),
    33111: meaning(
        "the backup is encrypted with a certificate that this server does not have",
        "restore the certificate and its private key there first: CREATE CERTIFICATE … FROM FILE",
        TargetNotUsable,
    ),
    4303: meaning("more log is needed to recover", "apply the next log backup"),
    4305: meaning(
        "a log before this one is missing",
        "plan again: sqlbak plan ITEM --to T; something was restored into the database meanwhile "
        "if the plan has no gap",
    ),
    4312: meaning("there is a gap in the log", "plan again: sqlbak plan ITEM --to T"),
    4318: meaning("the log ends too early to recover", "apply the next log backup"),
    4322: meaning(
        "the log ended before the instant asked for",
        "the database waits for more log: restore to a later recovery point, or accept where it "
        "stands with RESTORE DATABASE … WITH RECOVERY",
    ),
    4326: meaning("the log ends before what is restored already", "plan again"),
    4327: meaning(
        "the log holds bulk-logged changes: nothing can stop inside it",
        "the database stands at the end of that log; choose an instant before or after it",
    ),
    4329: meaning(
        "the log ended before the position asked for",
        "the database waits for more log: apply the next one",
    ),
    4330: meaning(
        "the backup is of another recovery path than the database",
        "plan again: another restore made a fork meanwhile",
    ),
    4331: meaning("files stand at different positions", "begin again with --overwrite"),
    4333: meaning("the log was not restored", "begin again with --overwrite"),
    4335: meaning(
        "the database is already past the instant asked for", "begin again with --overwrite"
    ),
    4338: meaning(
        "the backup ended after the instant asked for",
        "restore by way of an older full: sqlbak plan ITEM --to T",
    ),
    4341: meaning(
        "the log holds bulk-logged changes: nothing can stop inside it",
        "choose an instant before or after that log",
    ),
    4343: meaning(
        "the database is already past the instant asked for", "begin again with --overwrite"
    ),
    4349: meaning("a log before this one is missing", "plan again: sqlbak plan ITEM --to T"),
}
