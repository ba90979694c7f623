"""Which rows of the identity table change when a name's user is learned, or a user's endpoint is found. Pure.

The row of a name that is not an endpoint (an e-mail address, a phone number) says whose it is, and nothing depends on
it: no score is written to it.

With endpoints, two kinds of rows depend on each other: an endpoint's row says whose it is, a user's row says where the
user's score is written to. The rules keep a score off an endpoint that is known to be another user's:

1. An endpoint whose user is learned from an event ends what the user's row says, and what the row of the endpoint's
   former user says. Ending comes first, the endpoint's row second: after a crash between the two, the event is read
   again and both are done.
2. What the owner of the endpoints says of a user is written to the rows of the endpoints first, then to the user's row.
   The latter is written only if nothing has ended it since it was read, which was before the owner was asked.
3. An endpoint's row that names another user disputes such an answer, which may be older than the event that the row
   comes from. The owner is asked again. The second answer is newer than the row, so it holds.
4. A user without endpoints is remembered as such only while no event has named an endpoint of the user.

So whichever of two writers comes second finds the row changed, and reads again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec.structs import replace

from service.ingest.identity_rows import Row, RowKey, Write
from service.ingest.stores import AliasKey, DirectoryEntry, Disputes, Found
from service.scoring.fold import UserKey

Rows = Mapping[RowKey, Row]

_USER = "user#"


def alias_row(key: AliasKey) -> RowKey:
    """Return the key of the row of a name: endpoints whose ids differ in case only share one."""
    stored = key.stored()
    return f"{stored.kind}#{stored.value}", stored.project_id


def user_row(key: UserKey) -> RowKey:
    """Return the key of a user's row."""
    return f"{_USER}{key.user_id}", key.project_id


def user_of(row_key: RowKey) -> UserKey | None:
    """Return the user whose row has this key; None for the row of a name."""
    name, project_id = row_key
    return UserKey(name.removeprefix(_USER), project_id) if name.startswith(_USER) else None


def entry_of(row: Row, endpoint_id: str = "") -> DirectoryEntry:
    """Return what a row says of a user's endpoint; `endpoint_id` is its id where the row does not spell it."""
    return DirectoryEntry(row.endpoint_id or endpoint_id, row.status, row.channel, row.checked_ms, row.others)


def unsettled(rows: Rows, users: Mapping[AliasKey, str], renew_before_s: float) -> dict[AliasKey, str]:
    """Return those of `users` that the rows do not say yet, or that have a row that expires before `renew_before_s`.

    Args:
        rows: Those of the endpoints and of the users.
        users: Whose each name is, from events.
        renew_before_s: Epoch seconds.
    """

    def named(row: Row | None) -> bool:
        # A row without a stamp is of version 0.1, which named no users' rows.
        return row is not None and row.named and bool(row.stamp) and not 0 < row.expires_s < renew_before_s

    return {
        key: user
        for key, user in users.items()
        if not named(endpoint := rows.get(alias_row(key)))
        or endpoint is None
        or endpoint.user_id != user
        or (user and key.is_endpoint and not named(rows.get(user_row(UserKey(user, key.project_id)))))
    }


def users_rows(users: Mapping[AliasKey, str]) -> dict[RowKey, UserKey]:
    """Return the rows of the users that endpoints belong to."""
    keys = (UserKey(user, key.project_id) for key, user in users.items() if user and key.is_endpoint)
    return {user_row(key): key for key in keys}


def endings(rows: Rows, users: Mapping[AliasKey, str]) -> dict[RowKey, Write]:
    """Return how users' rows change before the rows of `users` do: what they say of a score's target ends.

    Args:
        rows: Those of the endpoints, of the users, and of `formers`.
        users: Whose each endpoint is, from events.
    """
    writes = ended(rows, formers(rows, users))
    for key, user in users.items():
        row_key = user_row(UserKey(user, key.project_id))
        endpoint = rows.get(alias_row(key))
        if user and key.is_endpoint and (endpoint is None or endpoint.user_id != user):
            write = writes.get(row_key)
            row = rows.get(row_key)
            if write is not None:
                writes[row_key] = Write(write.before, replace(write.after, named=True))
            elif row is not None and row.checked_ms:
                writes[row_key] = Write(row, Row(named=True))
    return writes


def marks(rows: Rows, users: Mapping[AliasKey, str], renew_before_s: float) -> dict[RowKey, Write]:
    """Return how the rows of users that `endings` leaves alone change: an event has named an endpoint of theirs."""
    writes: dict[RowKey, Write] = {}
    for row_key in users_rows(users):
        row = rows.get(row_key)
        if row is None:
            writes[row_key] = Write(None, Row(named=True))
        elif not row.named or 0 < row.expires_s < renew_before_s:
            writes[row_key] = Write(row, replace(row, named=True))
    return writes


def touched(rows: Rows, key: AliasKey, user: str) -> set[RowKey]:
    """Return the rows that change, or may change, with the user of an endpoint."""
    return {alias_row(key), *users_rows({key: user}), *formers(rows, {key: user})}


def ended(rows: Rows, row_keys: Collection[RowKey]) -> dict[RowKey, Write]:
    """Return the changes that end what users' rows say, whether or not a row is there: one may be on its way."""
    return {key: Write(rows.get(key), _open(rows.get(key) or Row())) for key in sorted(row_keys)}


def left_behind(writes: Mapping[RowKey, Write]) -> dict[RowKey, str]:
    """Return the endpoints' rows that repeat what `writes` end, each with the user it is about."""
    found: dict[RowKey, str] = {}
    for row_key, write in writes.items():
        user, before = user_of(row_key), write.before
        if user is not None and before is not None and before.endpoint_id and not write.after.endpoint_id:
            found[alias_row(AliasKey(before.endpoint_id, user.project_id))] = user.user_id
    return found


def stripped(rows: Rows, behind: Mapping[RowKey, str]) -> dict[RowKey, Write]:
    """Return the changes after which the rows of `left_behind` no longer say that they get the user's score."""
    return {
        key: Write(row, _unchecked(row))
        for key, user in behind.items()
        if (row := rows.get(key)) is not None and row.checked_ms and row.user_id == user
    }


def claims(rows: Rows, users: Mapping[AliasKey, str]) -> dict[RowKey, Write]:
    """Return how the rows of endpoints and other names change, once `endings` are written."""
    writes: dict[RowKey, Write] = {}
    for key, user in users.items():
        row_key = alias_row(key)
        row = rows.get(row_key)
        same = row is not None and row.user_id == user
        writes[row_key] = Write(row, replace(row, named=True) if row and same else Row(user_id=user, named=True))
    return writes


def formers(rows: Rows, users: Mapping[AliasKey, str]) -> set[RowKey]:
    """Return the rows of the users that endpoints are taken away from."""
    return {
        user_row(UserKey(row.user_id, key.project_id))
        for key, user in users.items()
        if key.is_endpoint and (row := rows.get(alias_row(key))) is not None and row.user_id not in ("", user)
    }


def endpoints(key: UserKey, found: Found) -> dict[AliasKey, str]:
    """Return the user of each endpoint that was found."""
    return {AliasKey(endpoint_id, key.project_id): key.user_id for endpoint_id in found.endpoints}


def undisputed(rows: Rows, found: Mapping[UserKey, Found]) -> tuple[dict[UserKey, Found], dict[UserKey, Disputes]]:
    """Divide answers into those that hold, and those to be asked for again because a row names another user."""
    holding: dict[UserKey, Found] = {}
    refused: dict[UserKey, Disputes] = {}
    taken: set[AliasKey] = set()
    for key, each in found.items():
        own = endpoints(key, each)
        disputes = frozenset(
            (row_key, row.stamp)
            for row_key in map(alias_row, own)
            if (row := rows.get(row_key)) is not None and row.user_id != key.user_id
        )
        if disputes <= each.disputed and taken.isdisjoint(own):
            holding[key] = each
            taken.update(own)
        else:
            refused[key] = each.disputed | disputes
    return holding, refused


def holdings(rows: Rows, key: UserKey, found: Found, renew_before_s: float) -> dict[RowKey, Write]:
    """Return how the rows of a user's endpoints change with what their owner said."""
    writes: dict[RowKey, Write] = {}
    chosen, entry = found.entry.endpoint_id.lower(), found.entry
    for endpoint_id in found.endpoints:
        row_key = alias_row(AliasKey(endpoint_id, key.project_id))
        row = rows.get(row_key)
        after = row if row is not None and row.user_id == key.user_id else Row(user_id=key.user_id)
        if endpoint_id == chosen:
            after = replace(
                after,
                endpoint_id=entry.endpoint_id,
                status=entry.endpoint_status,
                channel=entry.channel,
                checked_ms=entry.checked_ms,
            )
        elif after.checked_ms:
            after = _unchecked(after)
        if after != row or 0 < row.expires_s < renew_before_s:
            writes[row_key] = Write(row, after)
    return writes


def held(found: Found) -> Write | None:
    """Return how the user's own row changes; None: not at all.

    That is where an event has named an endpoint that the owner does not have (yet): to be asked again each time.
    """
    before, entry = found.before, found.entry
    if not entry.endpoint_id and before is not None and before.named:
        return None
    row = Row(
        endpoint_id=entry.endpoint_id,
        status=entry.endpoint_status,
        channel=entry.channel,
        checked_ms=entry.checked_ms,
        others=entry.others,
        named=before is not None and before.named,
    )
    return Write(before, row)


def _open(row: Row) -> Row:
    return Row(named=row.named)


def _unchecked(row: Row) -> Row:
    return replace(row, endpoint_id="", status="", channel="", checked_ms=0)
