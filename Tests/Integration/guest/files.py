"""Files of an ext4 file system over forks of the machine, in the midst of writing.

files.py make             an ext4 file system on /dev/vda, at /mnt
files.py write            writes without end, and prints "writing" when it has begun
files.py fork CLONES FORKS

The last one forks while threads write files whose contents they keep in mind, and another process makes, renames and
removes files as fast as it can. Each clone finds its files as its memory says. A clone with an odd number then
unmounts; one with an even number takes the file system down without letting it write another block, as a crash would,
and has the journal replayed. e2fsck finds nothing to repair in either. Mounted again, all is there that had to be.
Prints one line a clone, "VMID right" or what was wrong.
"""

import fcntl
import os
import random
import signal
import struct
import subprocess
import sys
import threading

import snowflock

DEVICE, ROOT = "/dev/vda", "/mnt"
EXT4_IOC_SHUTDOWN, WITHOUT_LOG = 0x8004587D, 2


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def must(*command):
    status, output = run(*command)
    assert status == 0, f"{' '.join(command)}: {output}"


def make():
    must("mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=0", DEVICE)
    must("mount", "-t", "ext4", DEVICE, ROOT)


def churn():
    """Makes, renames, truncates and removes; without end."""
    chance = random.Random(5)
    directory = ROOT + "/churn"
    os.makedirs(directory, exist_ok=True)
    while True:
        path = f"{directory}/{chance.randrange(40)}"
        kind = chance.randrange(5)
        try:
            if kind < 2:
                with open(path, "wb") as file:
                    file.write(bytes(chance.randrange(1, 60000)))
            elif kind == 2:
                os.rename(path, f"{directory}/{chance.randrange(40)}")
            elif kind == 3:
                os.truncate(path, chance.randrange(30000))
            else:
                os.unlink(path)
        except FileNotFoundError:
            pass


class Writer(threading.Thread):
    """Writes to twelve files of a directory of its own, and knows what is in each."""

    def __init__(self, number):
        super().__init__(daemon=True)
        self.directory = f"{ROOT}/writer{number}"
        os.makedirs(self.directory)
        self.chance = random.Random(number)
        self.files = {}
        self.stop = False
        self.failure = None

    def run(self):
        try:
            while not self.stop:
                self.step()
        except OSError as error:
            self.failure = error

    def step(self):
        name = str(self.chance.randrange(12))
        known = self.files.setdefault(name, bytearray())
        data = self.chance.randbytes(self.chance.randrange(1, 20000))
        place = self.chance.randrange(len(known) + 1) if len(known) < 200000 else 0
        file = os.open(f"{self.directory}/{name}", os.O_CREAT | os.O_WRONLY)
        try:
            assert os.pwrite(file, data, place) == len(data)
            known[place : place + len(data)] = data
            if not self.chance.randrange(8):
                os.fsync(file)
            if not self.chance.randrange(20):
                os.ftruncate(file, len(known) // 2)
                del known[len(known) // 2 :]
        finally:
            os.close(file)

    def wrong(self):
        return [name for name, known in self.files.items() if read(f"{self.directory}/{name}") != known]


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        return error


def settle(path, data):
    """The file is on the disk when this returns."""
    with open(path, "wb") as file:
        file.write(data)
        os.fsync(file.fileno())
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def needs_replay():
    """Whether the superblock says so (ext4: s_feature_incompat, RECOVER)."""
    with open(DEVICE, "rb") as device:
        device.seek(1024 + 0x60)
        return bool(struct.unpack("<I", device.read(4))[0] & 4)


def check(is_crash):
    """What e2fsck has to say after the kernel has replayed the journal, if there is one: nothing."""
    if needs_replay() != is_crash:
        return "there is a journal to replay" if needs_replay() else "there is no journal to replay"
    if is_crash:
        must("mount", "-t", "ext4", DEVICE, ROOT)
        must("umount", ROOT)
    status, output = run("e2fsck", "-fn", "-E", "no_optimize_extents", DEVICE)
    return f"e2fsck: {output}" if status else ""


def in_clone(writers, churner, synced, fresh):
    is_crash = snowflock.vmid() % 2 == 0
    os.kill(churner, signal.SIGKILL)
    os.waitpid(churner, 0)
    if is_crash:
        root = os.open(ROOT, os.O_RDONLY)
        fcntl.ioctl(root, EXT4_IOC_SHUTDOWN, struct.pack("I", WITHOUT_LOG))
        os.close(root)
    for writer in writers:
        writer.stop = True
        writer.join()
    known = dict(synced)
    if not is_crash:
        known.update(fresh)
        failures = [writer.failure for writer in writers if writer.failure]
        cached = [w.wrong() for w in writers if w.wrong()] + [p for p in known if read(p) != known[p]]
        if failures or cached:
            return f"in the page cache: {cached} {failures}"
    must("umount", ROOT)
    found = check(is_crash)
    if found:
        return found
    must("mount", "-t", "ext4", DEVICE, ROOT)
    lost = [path for path, data in known.items() if read(path) != data]
    if not is_crash:
        lost += [writer.wrong() for writer in writers if writer.wrong()]
    return f"on the disk: {lost}" if lost else ""


def fork(clones, forks):
    os.makedirs(ROOT + "/settled")
    churner = os.fork()
    if churner == 0:
        churn()
    writers = [Writer(1), Writer(2)]
    for writer in writers:
        writer.start()
    synced = {}
    for number in range(forks):
        data = os.urandom(100000)
        settle(f"{ROOT}/settled/{number}", data)
        synced[f"{ROOT}/settled/{number}"] = data
        ticket = snowflock.request_ticket(clones)
        # Written at the last moment: in the page cache alone.
        fresh = {f"{ROOT}/settled/fresh{number}": os.urandom(50000)}
        for path, data in fresh.items():
            with open(path, "wb") as file:
                file.write(data)
        if snowflock.clone(ticket) > 0:
            try:
                wrong = in_clone(writers, churner, synced, fresh)
            except BaseException as error:
                wrong = repr(error)
            snowflock.exit_with(1 if wrong else 0, wrong.encode()[-4000:])
        for end in snowflock.join(ticket):
            told = end.result.decode() or (end.reason or "right")
            print(end.vmid, "right" if (end.how, end.status) == (snowflock.EXITED, 0) else told, flush=True)
    for writer in writers:
        writer.stop = True
        writer.join()
    os.kill(churner, signal.SIGKILL)
    os.waitpid(churner, 0)
    print("parent", [w.wrong() or w.failure for w in writers if w.wrong() or w.failure] or "right", flush=True)


if sys.argv[1] == "make":
    make()
elif sys.argv[1] == "write":
    for one in (Writer(3), Writer(4)):
        one.start()
    os.sync()
    print("writing", flush=True)
    churn()
else:
    fork(int(sys.argv[2]), int(sys.argv[3]))
