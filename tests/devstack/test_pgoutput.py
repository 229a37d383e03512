"""The decoder against messages that PostgreSQL 18 wrote for a table jobs (id int primary key, note text, big text)."""

from datetime import UTC, datetime

import pytest

from devstack.realtime.pgoutput import Change, Column, Decoder, PgoutputError, Toasted

BEGIN = "4200000000016f2c98000303fd4cff2aa6000002f1"
RELATION = (
    "52000040007075626c6963006a6f6273006400030169640000000017ffffffff"
    "006e6f74650000000019ffffffff006269670000000019ffffffff"
)
FULL_RELATION = (
    "52000040007075626c6963006a6f6273006600030169640000000017ffffffff"
    "016e6f74650000000019ffffffff016269670000000019ffffffff"
)
INSERT = "49000040004e0003740000000131740000000a6e61c3af766520e298836e"
UPDATE = "55000040004e000374000000013274000000017a75"  # a large value left alone
KEY_UPDATE = "55000040004b00037400000001326e6e4e000374000000013374000000017a75"
FULL_UPDATE = "55000040004f000374000000013374000000017a74000000016f4e000374000000013374000000017775"
DELETE = "44000040004b00037400000001316e6e"
COMMIT = "430000000000016f2c9800000000016f2cc8000303fd4cff2aa6"
TRUNCATE = "54000000010000004000"


def decoded(*messages: str) -> list[Change]:
    decoder = Decoder()
    fed = [decoder.feed(bytes.fromhex(message)) for message in (BEGIN, *messages, COMMIT)]
    return [change for change in fed if change is not None]


def test_insert_carries_table_values_and_transaction() -> None:
    (change,) = decoded(RELATION, INSERT)
    relation = change.relation
    assert (relation.schema, relation.table, relation.oid) == ("public", "jobs", 0x4000)
    assert relation.columns == (Column("id", 23, True), Column("note", 25, False), Column("big", 25, False))
    assert (change.kind, change.new, change.old) == ("INSERT", ("1", "naïve ☃", None), None)
    assert change.commit_lsn == 0x16F2C98
    assert change.committed_at == datetime(2026, 11, 24, 4, 56, 23, 532198, tzinfo=UTC)


def test_large_value_that_an_update_left_alone_is_not_taken_for_null() -> None:
    (change,) = decoded(RELATION, UPDATE)
    assert (change.new, change.old) == (("2", "z", Toasted.UNCHANGED), None)


def test_update_of_the_key_carries_the_old_key() -> None:
    (change,) = decoded(RELATION, KEY_UPDATE)
    assert (change.old, change.old_is_whole) == (("2", None, None), False)


def test_full_replica_identity_carries_the_old_row() -> None:
    (change,) = decoded(FULL_RELATION, FULL_UPDATE)
    assert (change.old, change.old_is_whole) == (("3", "z", "o"), True)
    assert change.new == ("3", "w", Toasted.UNCHANGED)


def test_delete_has_no_new_row() -> None:
    (change,) = decoded(RELATION, DELETE)
    assert (change.kind, change.new, change.old) == ("DELETE", None, ("1", None, None))


def test_later_relation_message_replaces_the_table() -> None:
    first, second = decoded(RELATION, INSERT, FULL_RELATION, INSERT)
    assert [column.key for column in first.relation.columns] == [True, False, False]
    assert [column.key for column in second.relation.columns] == [True, True, True]


def test_truncate_is_passed_over() -> None:
    assert decoded(RELATION, TRUNCATE) == []


@pytest.mark.parametrize(
    ("message", "said"),
    [("5a", "'Z'"), (INSERT[:-20], "were announced"), (INSERT[:-2] + "62", "'b'")],
)
def test_unknown_message_is_an_error_and_not_a_guess(message: str, said: str) -> None:
    with pytest.raises(PgoutputError, match=said):
        decoded(RELATION, message)
