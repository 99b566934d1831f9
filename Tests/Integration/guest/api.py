"""The Python module in a guest, checked by itself: prints "right" and exits with 0, or fails an assertion."""

import errno
import os
import time

import snowflock


def error_of(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except snowflock.SnowflockError as error:
        return error.errno
    return 0


def results():
    table = {number: bytes([number]) * 1000 for number in range(100)}
    ticket = snowflock.request_ticket(2)
    assert ticket.granted == 2, ticket
    me = snowflock.clone(ticket)
    assert snowflock.vmid() == me
    if me > 0:
        whole = all(table[number] == bytes([number]) * 1000 for number in table)
        table.clear()
        snowflock.exit_with(me + 2, os.uname().nodename.encode() + (b" whole" if whole else b" broken"))
    table.clear()
    ends = snowflock.join(ticket)
    assert [(end.vmid, end.how, end.status) for end in ends] == [
        (1, snowflock.EXITED, 3),
        (2, snowflock.EXITED, 4),
    ], ends
    assert [end.result.split(b".")[-1] for end in ends] == [b"1 whole", b"2 whole"], ends
    assert error_of(snowflock.join, ticket) == errno.ENOENT


def kill():
    ticket = snowflock.request_ticket(1)
    if snowflock.clone(ticket) > 0:
        time.sleep(1000)
    assert error_of(snowflock.join, ticket, timeout=0.1) == errno.ETIMEDOUT
    snowflock.kill(ticket)
    (end,) = snowflock.join(ticket)
    assert end.how == snowflock.KILLED and end.reason, end


def checkpoint():
    moment = ["before"]
    point = snowflock.checkpoint_parent()
    if snowflock.vmid() > 0:
        snowflock.exit_with(0, moment[0].encode())
    moment[0] = "after"
    for _ in range(2):
        ticket = snowflock.request_ticket(1)
        snowflock.create_clones(point, ticket)
        (end,) = snowflock.join(ticket)
        assert end.result == b"before", end


def errors():
    assert snowflock.vmid() == 0
    assert error_of(snowflock.request_ticket, 0) == errno.EINVAL
    assert error_of(snowflock.request_ticket, 1, host="nowhere") == errno.ENOENT
    assert error_of(snowflock.clone, snowflock.Ticket("t-0000000000000000", 1)) == errno.ENOENT
    assert snowflock.cc_start("block") is None and snowflock.cc_stop() is None


results()
kill()
checkpoint()
errors()
print("right")
