"""Machines on which units fail that others make."""

from __future__ import annotations

from codectok.pipelines.engine.scheduling.node_faults import ERRORS_IN_A_ROW, NodeFaults


def test_only_machine_is_never_left_out() -> None:
    faults = NodeFaults()
    faults.succeeded("one")
    assert not any(faults.is_out_of_order("one", at_once=True) for _ in range(20))


def test_machine_with_errors_in_a_row_is_left_out_while_others_work() -> None:
    faults = NodeFaults()
    faults.succeeded("sound")
    faults.succeeded("bad")
    assert [faults.is_out_of_order("bad", at_once=False) for _ in range(ERRORS_IN_A_ROW)] == [False] * 4 + [True]
    faults.succeeded("bad")
    assert not faults.is_out_of_order("bad", at_once=False)


def test_full_disk_leaves_a_machine_out_at_once_unless_others_have_it_too() -> None:
    faults = NodeFaults()
    for node in ("one", "two"):
        faults.succeeded(node)
    assert faults.is_out_of_order("one", at_once=True)
    assert not faults.others_work("two")  # the shared disk is full
    assert not faults.is_out_of_order("two", at_once=True)
