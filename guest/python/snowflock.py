"""Fork the virtual machine that this process runs in.

The functions are those of snowflock.h, with and without the prefix sf_. Failures raise SnowflockError, whose errno
is positive as usual. No compiled part: the module speaks the agent's protocol (agent_protocol.h) itself.
"""

import errno as _errno
import os as _os
import socket as _socket
import struct as _struct
import sys as _sys

_SOCKET = "/run/snowflock/agent.sock"
_VMID_FILE = "/run/snowflock/vmid"
_MAGIC = 0x47414653
_VERSION = 1
_REQUEST = _struct.Struct("<IHHiiIIq40s40s")
_ANSWER = _struct.Struct("<IHHiIIiiI40s160s")
_REQUEST_TICKET, _CLONE, _CHECKPOINT, _CREATE_CLONES, _EXIT, _JOIN, _KILL, _CLAIM = range(1, 9)
_REQUEST_TICKET_ON = 13
_ANSWER_LAST, _ANSWER_STATUS = 100, 101

RESULT_MAX = 1 << 20
EXITED, KILLED, LOST = 1, 2, 3

# Which process of a hierarchical clone this is.
_process_index = 0


class SnowflockError(OSError):
    """A call failed; errno says how, strerror why."""


class Ticket:
    """Leave to make `granted` clones."""

    def __init__(self, id, granted):
        self.id = id
        self.granted = granted

    def __repr__(self):
        return f"Ticket({self.id!r}, granted={self.granted})"


class Checkpoint:
    """A fork point that is kept."""

    def __init__(self, id):
        self.id = id

    def __repr__(self):
        return f"Checkpoint({self.id!r})"


class ExitStatus:
    """How one clone ended: how is EXITED, KILLED or LOST; result is bytes."""

    def __init__(self, vmid, how, status, result, reason):
        self.vmid = vmid
        self.how = how
        self.status = status
        self.result = result
        self.reason = reason

    def __repr__(self):
        how = {EXITED: "exited", KILLED: "killed", LOST: "lost"}.get(self.how, self.how)
        reason = f", {self.reason}" if self.reason else ""
        return f"ExitStatus(vmid={self.vmid}, {how}, status={self.status}, {len(self.result)} bytes{reason})"


def _text(field):
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")


def _receive(connection, length):
    data = bytearray()
    while len(data) < length:
        part = connection.recv(min(length - len(data), 1 << 16))
        if not part:
            raise SnowflockError(_errno.ENOTCONN, "the guest's agent went away")
        data += part
    return bytes(data)


class _Answer:
    def __init__(self, connection):
        fields = _ANSWER.unpack(_receive(connection, _ANSWER.size))
        magic, version, self.type, self.error, self.vmid, self.count = fields[:6]
        self.how, self.status, length, id, message = fields[6:]
        if magic != _MAGIC or version != _VERSION or length > RESULT_MAX:
            raise SnowflockError(_errno.EPROTO, "the guest's agent speaks another protocol")
        self.id = _text(id)
        self.message = _text(message)
        self.result = _receive(connection, length)


def _ask(type, number=0, flag=0, vmid=0, result=b"", timeout_ms=-1, ticket="", snapshot=""):
    """Asks the agent; the statuses on the way, and the last answer."""
    request = _REQUEST.pack(
        _MAGIC, _VERSION, type, number, flag, vmid, len(result), timeout_ms, ticket.encode(), snapshot.encode()
    )
    statuses = []
    with _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM) as connection:
        try:
            connection.connect(_SOCKET)
            connection.sendall(request + result)
            while True:
                answer = _Answer(connection)
                if answer.type == _ANSWER_LAST:
                    break
                statuses.append(answer)
        except SnowflockError:
            raise
        except OSError as error:
            raise SnowflockError(_errno.ENOTCONN, "the guest's agent is not there") from error
    if answer.error:
        raise SnowflockError(-answer.error, answer.message or _os.strerror(-answer.error))
    return statuses, answer


def _flush():
    """What lies in buffers at the fork would be written by every clone."""
    for stream in (_sys.stdout, _sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass


def _become_processes(first, count):
    """A hierarchical clone: one process on each virtual CPU, each with its own vmid."""
    global _process_index
    _process_index = 0
    if count <= 1:
        return first
    for index in range(1, count):
        try:
            pid = _os.fork()
        except OSError:
            _ask(_EXIT, number=255, vmid=first + index)
            continue
        if pid == 0:
            _process_index = index
            _pin(index)
            try:
                _ask(_CLAIM, vmid=first + index)
            except SnowflockError:
                _os._exit(255)
            return first + index
    _pin(0)
    return first


def _pin(cpu):
    try:
        _os.sched_setaffinity(0, {cpu})
    except OSError:
        pass


def sf_request_ticket(n, hierarchical=False, host=None):
    """Asks for n clones, on `host` if one is named; the ticket says how many are granted."""
    type = _REQUEST_TICKET_ON if host else _REQUEST_TICKET
    _, answer = _ask(type, number=n, flag=int(bool(hierarchical)), result=(host or "").encode())
    return Ticket(answer.id, answer.count)


def sf_clone(ticket):
    """Forks the VM. 0 in the parent, 1 to ticket.granted in the clones."""
    _flush()
    _, answer = _ask(_CLONE, ticket=ticket.id)
    return _become_processes(answer.vmid, answer.count) if answer.vmid else 0


def sf_checkpoint_parent():
    """Makes a fork point of this moment; it returns again in every clone made of it."""
    _flush()
    _, answer = _ask(_CHECKPOINT)
    if answer.vmid:
        _become_processes(answer.vmid, answer.count)
    return Checkpoint(answer.id)


def sf_create_clones(checkpoint, ticket):
    """Makes the ticket's clones of a fork point."""
    _ask(_CREATE_CLONES, snapshot=checkpoint.id, ticket=ticket.id)


def sf_exit_with(status, result=b""):
    """Ends the clone; the result (bytes, at most RESULT_MAX) comes home with sf_join. In a parent: sys.exit."""
    vmid = sf_vmid()
    if vmid == 0:
        _sys.exit(status)
    result = bytes(result)
    if len(result) > RESULT_MAX:
        raise SnowflockError(_errno.EMSGSIZE, f"a result has at most {RESULT_MAX} bytes")
    _flush()
    try:
        _ask(_EXIT, number=status, vmid=vmid, result=result)
    finally:
        _os._exit(status & 0xFF)


def sf_exit(status=0):
    """Ends the clone. In a parent: sys.exit."""
    sf_exit_with(status)


def sf_join(ticket, timeout=None):
    """Waits until every clone has ended, at most timeout seconds (then errno ETIMEDOUT). A list of ExitStatus."""
    milliseconds = -1 if timeout is None else max(0, int(timeout * 1000))
    statuses, _ = _ask(_JOIN, ticket=ticket.id, timeout_ms=milliseconds)
    return [ExitStatus(s.vmid, s.how, s.status, s.result, s.message) for s in statuses]


def sf_kill(ticket):
    """Ends every clone of the ticket."""
    _ask(_KILL, ticket=ticket.id)


def sf_vmid():
    """0 in a parent, the clone's number in a clone."""
    try:
        with open(_VMID_FILE, encoding="ascii") as file:
            first = int(file.read() or 0)
    except (OSError, ValueError):
        return 0
    return first + _process_index if first else 0


def cc_start(block):
    """The beginning of a block to offload. Python's own blocks are not offloaded: only those of compiled programs and
    libraries that sf-offload runs are. It does nothing."""


def cc_stop():
    """The end of a block to offload; see cc_start."""


request_ticket = sf_request_ticket
clone = sf_clone
exit = sf_exit
exit_with = sf_exit_with
join = sf_join
kill = sf_kill
checkpoint_parent = sf_checkpoint_parent
create_clones = sf_create_clones
vmid = sf_vmid
