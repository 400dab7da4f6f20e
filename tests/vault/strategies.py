"""What hypothesis draws for the vault's values."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from sqlbak.model import EngineName, Item, Point, PointType
from sqlbak.vault.manifest import Manifest
from sqlbak.vault.payload_index import (
    PayloadIndex,
    ServerObject,
    StreamIndex,
    Volume,
    pack_lengths,
)

point_ids = st.from_regex(
    re.compile(r"20[0-9]{2}0[1-9][0-2][1-8]T[01][0-9][0-5][0-9][0-5][0-9]Z-[a-z2-7]{10}", re.ASCII),
    fullmatch=True,
)
instants = st.integers(0, 7_258_118_400_000_000).map(
    lambda count: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=count)
)
lineages = st.one_of(
    st.integers(1, 2**32 - 1).map(str),
    st.uuids().map(str),
    st.uuids().map(lambda guid: str(guid).upper()),
    st.from_regex(re.compile(r"[A-Za-z0-9-]{1,20}", re.ASCII), fullmatch=True),
)
lsns = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 10**25 - 1))
sizes = st.integers(0, 2**50)


@st.composite
def points(draw: st.DrawFn) -> Point:
    kind = draw(st.sampled_from(PointType))
    first, last = sorted((draw(lsns), draw(lsns)))
    is_log = kind is PointType.LOG
    return Point(
        id=draw(point_ids),
        type=kind,
        lineage=draw(lineages),
        first_lsn=first,
        last_lsn=last,
        started_at=draw(instants),
        finished_at=draw(instants),
        reachable_from=None if is_log else draw(st.none() | instants),
        covers_until=draw(st.none() | instants),
        probable_until=draw(st.none() | instants),
        first_lineage=draw(st.none() | lineages) if is_log else None,
        base_id=draw(st.none() | point_ids) if kind is PointType.DIFFERENTIAL else None,
        is_copy_only=draw(st.booleans()),
        has_bulk_logged=draw(st.booleans()),
        size_bytes=draw(sizes),
    )


@st.composite
def stream_indexes(draw: st.DrawFn, name: str) -> StreamIndex:
    frame_bytes = draw(st.sampled_from([1000, 4 << 20]))
    lengths = draw(st.lists(st.integers(1, 5 << 20), max_size=8))
    short = draw(st.integers(1, frame_bytes)) if lengths else 0
    volumes, left = [], list(lengths)
    while left:
        count = draw(st.integers(1, len(left)))
        volumes.append(Volume(count, sum(left[:count])))
        left = left[count:]
    return StreamIndex(
        name=name,
        raw_bytes=max(0, len(lengths) - 1) * frame_bytes + short,
        frame_bytes=frame_bytes,
        volumes=tuple(volumes),
        lengths=pack_lengths(lengths),
        checksums=draw(st.binary(min_size=16 * len(lengths), max_size=16 * len(lengths))),
    )


@st.composite
def payload_indexes(draw: st.DrawFn) -> PayloadIndex:
    names = draw(
        st.lists(st.sampled_from(["base.tar", "16400.tar", "wal", "page-map"]), unique=True)
    )
    written = draw(st.lists(st.sampled_from(["1of2.bak", "2of2.bak"]), unique=True))
    return PayloadIndex(
        tuple(draw(stream_indexes(name)) for name in names),
        tuple(draw(server_objects(name)) for name in written),
    )


def server_objects(name: str) -> st.SearchStrategy[ServerObject]:
    return st.builds(
        ServerObject,
        name=st.just(name),
        stored_bytes=st.integers(1, 1 << 45),
        etag=st.text(min_size=1, max_size=40),
        modified_at=instants,
    )


names_of_people = st.text(min_size=1, max_size=30)
items = st.builds(
    Item,
    id=st.just("orders-0123456789abcdef"),
    engine=st.sampled_from(EngineName),
    instance=names_of_people,
    database=st.none() | names_of_people,
    identity=names_of_people,
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
manifests = st.builds(
    Manifest,
    point=points(),
    item=items,
    payload=payload_indexes(),
    sqlbak_version=st.just("1.2.3"),
    slot=st.none() | instants,
    label=st.none() | st.text(max_size=20),
    facts=st.dictionaries(st.text(max_size=8), json_values, max_size=4),
)
