"""Rules that join several settings: schedules over the calendar, and spans of retention.

Schedules are not judged by how their lines look: every slot of 28 years, which hold every kind of
year (leap or not, beginning on any week day), is laid out in the policy's zone with its clock
changes, and a broken rule is shown by a date on which it breaks.

The ranges are those of Azure Backup for SQL Server in a virtual machine.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

from sqlbak.policy.cron import CronLine
from sqlbak.policy.duration import Duration
from sqlbak.policy.instance_settings import SqlServerInstance
from sqlbak.policy.local_time import end_of_gap, instants
from sqlbak.policy.problem import SettingProblem, quoted
from sqlbak.policy.quiet_hours import QuietHours, leaves_time
from sqlbak.policy.schema import Retention
from sqlbak.policy.server_url import names_vault, server_url_of
from sqlbak.policy.vault_settings import Redundancy, VaultSettings

__all__ = [
    "delivery_problems",
    "quiet_problems",
    "retention_problems",
    "schedule_problems",
    "shipping_problems",
    "sql_server_problems",
    "vault_problems",
]

_FIRST_DAY, _LAST_DAY = date(2026, 1, 1), date(2053, 12, 31)
_WEEK = timedelta(days=6)
_RETENTION_RANGES = {
    "full": (Duration(7, "d"), Duration(9999, "d")),
    "differential": (Duration(7, "d"), Duration(180, "d")),
    "log": (Duration(7, "d"), Duration(35, "d")),
    "weekly": (Duration(1, "w"), Duration(5163, "w")),
    "monthly": (Duration(1, "m"), Duration(1188, "m")),
    "yearly": (Duration(1, "y"), Duration(99, "y")),
}
_SOFT_DELETE_RANGE = (Duration(1, "d"), Duration(180, "d"))
_TIERS = ("full", "weekly", "monthly", "yearly")


def schedule_problems(
    full: CronLine | None, differential: CronLine | None, zone: ZoneInfo
) -> list[SettingProblem]:
    """What is wrong with the schedules of a policy; a line that could not be read is None."""
    problems = []
    for kind, line in (("full", full), ("differential", differential)):
        message = None if line is None else _line_problem(kind, line, zone)
        if message:
            problems.append(SettingProblem((kind,), message))
    if full is not None and differential is not None and not problems:
        message = _pair_problem(full, differential, zone)
        if message:
            problems.append(SettingProblem(("differential",), message))
    return problems


def _line_problem(kind: str, line: CronLine, zone: ZoneInfo) -> str | None:
    days = _days(line)
    if not days:
        return f"{kind} never happens: no day fits the cron line; write e.g. '0 1 * * sun'"
    if len(line.times) > 1:
        first, second = line.times[:2]
        return (
            f"{kind} happens {len(line.times)} times a day, e.g. on {min(days)} at {first:%H:%M} "
            f"and {second:%H:%M}, but it may happen once at most; write one time of day, e.g. "
            "'0 1 * * *'"
        )
    for year in range(_FIRST_DAY.year, _LAST_DAY.year + 1):
        if not any(day.year == year for day in days):
            return (
                f"{kind} does not happen at all in {year}; write a line that comes at least once "
                "a year, e.g. '0 1 * * sun'"
            )
    for day, runs_on in _moved(line, zone):
        if runs_on in days:
            return (
                f"{kind} would happen twice on {runs_on}: the clocks in {zone} skip "
                f"{line.times[0]:%H:%M} of {day}, so it runs after midnight; write an earlier or a "
                "later time of day"
            )
    return None


def _pair_problem(full: CronLine, differential: CronLine, zone: ZoneInfo) -> str | None:
    fulls, differentials = _days(full), _days(differential)
    daily_since = _first_daily_week(sorted(fulls))
    if daily_since:
        return (
            f"a differential needs a weekly full, but full happens on every day, e.g. from "
            f"{daily_since} to {daily_since + _WEEK}; remove differential, or write "
            'full: "0 1 * * sun" and differential: "0 1 * * mon-sat"'
        )
    both = min(fulls & differentials, default=None)
    if both:
        return (
            f"differential and full both fall on {both} ({both:%A}); a differential never runs on "
            "a day with a full: write days on which there is no full"
        )
    for line, other in ((differential, fulls), (full, differentials)):
        for day, runs_on in _moved(line, zone):
            if runs_on in other:
                return (
                    f"differential and full both run on {runs_on}: the clocks in {zone} skip "
                    f"{line.times[0]:%H:%M} of {day}, so it runs after midnight; write an earlier "
                    "or a later time of day"
                )
    return None


@lru_cache(maxsize=1024)
def _days(line: CronLine) -> frozenset[date]:
    return frozenset(line.dates(_FIRST_DAY, _LAST_DAY))


def _moved(line: CronLine, zone: ZoneInfo) -> Iterator[tuple[date, date]]:
    """The days whose slot runs on another local day, because the clocks skip it past midnight;
    each with that other day."""
    at = line.times[0]
    for day in sorted(_days(line) & _days_of_clock_changes(zone)):
        wall = datetime.combine(day, at)
        if not instants(wall, zone):
            runs_on = end_of_gap(wall, zone).astimezone(zone).date()
            if runs_on != day:
                yield day, runs_on


@lru_cache(maxsize=64)
def _days_of_clock_changes(zone: ZoneInfo) -> frozenset[date]:
    """Local days on which the offset of ``zone`` is another at their beginning than at the next
    day's beginning, and the days beside them."""
    found = set()
    day, one = _FIRST_DAY, timedelta(days=1)
    midnights = [day + count * one for count in range((_LAST_DAY - day).days + 2)]
    offsets = [datetime.combine(day, datetime.min.time(), zone).utcoffset() for day in midnights]
    for (day, before), (_, after) in pairwise(zip(midnights, offsets, strict=True)):
        if before != after:
            found |= {day - one, day, day + one}
    return frozenset(found)


def _first_daily_week(days: Sequence[date]) -> date | None:
    """The first of seven days in a row that are all in ``days`` (ascending)."""
    for first, last in zip(days, days[6:], strict=False):
        if last - first == _WEEK:
            return first
    return None


def shipping_problems(keys: Collection[str]) -> list[SettingProblem]:
    """What is wrong with continuous shipping in a policy that has these keys."""
    problems = []
    if "log_shipping" in keys and "log" not in keys:
        message = "ships what lies between two log backups, and there are none; write log: 15m"
        problems.append(SettingProblem(("log_shipping",), message))
    if "log_shipping_interval" in keys and "log_shipping" not in keys:
        message = "means nothing without continuous shipping; write log_shipping: continuous"
        problems.append(SettingProblem(("log_shipping_interval",), message))
    return problems


def quiet_problems(spans: Sequence[QuietHours]) -> list[SettingProblem]:
    """What is wrong with the quiet hours of a policy."""
    if not spans or leaves_time(spans):
        return []
    message = "leave no minute of the week in which a full could start; write shorter spans"
    return [SettingProblem(("quiet_hours",), message)]


def retention_problems(spans: Mapping[str, Duration]) -> list[SettingProblem]:
    """What is wrong with the spans of a retention, by key; missing ones are not written, those
    that could not be read are left out as well."""
    problems = []
    known = dict(spans)
    for key, span in spans.items():
        message = _range_problem(span, *_RETENTION_RANGES[key])
        if message:
            problems.append(SettingProblem(("retention", key), message))
            del known[key]
    if "full" not in spans:
        known["full"] = Retention().full
    pairs = list(pairwise(key for key in _TIERS if key in known))
    if "differential" in known and "full" in known:
        pairs.append(("differential", "full"))
    for shorter, longer in pairs:
        if not known[shorter].is_never_longer_than(known[longer]):
            aside = (
                "" if shorter in spans and longer in spans else " (full is 30d when not written)"
            )
            at = longer if longer in spans and shorter != "differential" else shorter
            problems.append(
                SettingProblem(
                    ("retention", at),
                    f"{shorter} ({known[shorter]}) must not be kept longer than {longer} "
                    f"({known[longer]}){aside}; write a {shorter} of at most {known[longer]}, or a "
                    f"{longer} of at least {known[shorter]}",
                )
            )
    return problems


def _range_problem(span: Duration, shortest: Duration, longest: Duration) -> str | None:
    if shortest.is_never_longer_than(span) and span.is_never_longer_than(longest):
        return None
    return f"{span} is out of range; write between {shortest} and {longest}"


def vault_problems(vault: VaultSettings) -> list[SettingProblem]:
    """What is wrong between the settings of one vault."""
    problems = []
    if vault.redundancy is Redundancy.GEO and vault.secondary is None:
        message = "geo needs a second place; write secondary: s3://bucket/prefix beside it"
        problems.append(SettingProblem(("redundancy",), message))
    if vault.redundancy is Redundancy.LOCAL and vault.secondary is not None:
        message = "secondary means nothing with redundancy: local; remove it, or write geo"
        problems.append(SettingProblem(("secondary",), message))
    if vault.secondary is not None and vault.secondary == vault.url:
        message = "secondary is the vault itself; write another bucket or folder"
        problems.append(SettingProblem(("secondary",), message))
    if vault.soft_delete is not None:
        out_of_range = _range_problem(vault.soft_delete, *_SOFT_DELETE_RANGE)
        if out_of_range:
            problems.append(SettingProblem(("soft_delete",), out_of_range))
    if vault.s3 is not None:
        if not vault.url.startswith("s3://"):
            message = "s3 settings belong to an s3:// vault; remove them"
            problems.append(SettingProblem(("s3",), message))
        if (vault.s3.access_key is None) != (vault.s3.secret_key is None):
            message = "access_key and secret_key belong together; write both or neither"
            problems.append(SettingProblem(("s3",), message))
        if vault.s3.session_token is not None and vault.s3.access_key is None:
            message = "session_token needs access_key and secret_key beside it; write them too"
            problems.append(SettingProblem(("s3", "session_token"), message))
    return problems


def sql_server_problems(instance: SqlServerInstance) -> list[SettingProblem]:
    """What is wrong between the settings of one SQL Server instance."""
    problems = [*_replica_problems(instance)]
    delivery = instance.delivery
    if (delivery.disk is None) == (delivery.url is None):
        problems.append(SettingProblem(("delivery",), "write exactly one of disk: and url:"))
    elif delivery.url is not None and instance.compression == "none":
        message = (
            "SQL Server writes objects of more than 100 GB to a url only when it compresses; write "
            "compression: auto"
        )
        problems.append(SettingProblem(("compression",), message))
    if not instance.databases.include:
        message = 'includes no database; write include: ["*"]'
        problems.append(SettingProblem(("databases", "include"), message))
    if instance.wire == "verified" and instance.ca_file is None:
        message = "has nothing to check the certificate with; write ca_file: PATH beside it"
        problems.append(SettingProblem(("tls",), message))
    if instance.wire != "verified" and instance.ca_file is not None:
        message = "means nothing unless the certificate is checked; write tls: verified"
        problems.append(SettingProblem(("ca_file",), message))
    return problems


def delivery_problems(instance: SqlServerInstance, vault: VaultSettings) -> list[SettingProblem]:
    """What is wrong between an instance's delivery and the vault of its policy."""
    url = instance.delivery.url
    if url is None:
        return []
    at = ("delivery", "url")
    if not vault.url.startswith("s3://"):
        message = (
            f"the vault is {vault.url}, and SQL Server writes to s3:// only; write disk: "
            "{server_path: ..., local_path: ...}, or use a vault on s3://"
        )
        return [SettingProblem(at, message)]
    problems = []
    if not names_vault(url, vault.url):
        s3 = vault.s3
        wanted = server_url_of(
            vault.url, None if s3 is None else s3.endpoint, None if s3 is None else s3.region
        )
        message = (
            f"names another place than the vault, {vault.url}, into which the server is to write; "
            f"write its bucket and prefix with the host that the server reaches, such as {wanted}"
        )
        problems.append(SettingProblem(at, message))
    if vault.encryption is not None:
        message = (
            "SQL Server writes past sqlbak, so that the vault's encryption would not hold for it; "
            "write disk: {server_path: ..., local_path: ...}"
        )
        problems.append(SettingProblem(at, message))
    return problems


def _replica_problems(instance: SqlServerInstance) -> Iterator[SettingProblem]:
    names: dict[str, str] = {}
    places: dict[tuple[str, int], str] = {}
    for name, replica in instance.replicas.items():
        at = ("replicas", name)
        own = replica.delivery
        if own is not None and (own.disk is None or instance.delivery.disk is None):
            message = (
                "may be disk: {server_path: ..., local_path: ...} where the instance's is disk: "
                "too; else all its servers write to the instance's url, so leave it out here"
            )
            yield SettingProblem((*at, "delivery"), message)
        if (other := names.setdefault(name.lower(), name)) is not name:
            yield SettingProblem(at, f"is the same server as {quoted(other)}; write it once")
        place = (instance.replica_host(name).lower(), replica.port)
        if (other := places.setdefault(place, name)) is not name:
            message = f"is at the same address as {quoted(other)}; write a host or port of its own"
            yield SettingProblem(at, message)
