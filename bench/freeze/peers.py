#!/usr/bin/env python3
"""What filesystems do when they are frozen, shut down, and when their device has no more room.

    ./x bench freeze-peers [--dir DIR] [--rounds N] [--only NAME,...]

Each filesystem is made on a loop device of its own (on a file in DIR; for the device without room, in a tmpfs of its own), never on anything
else, and asked the same questions. Prints one table per question, in the form of docs/thread.md. The driver of bcachefs is asked by
`--inside DIR`, which is run in a machine that has it (bench/freeze/oracle.sh).

A freeze is ended whatever happens: by a second process that thaws after HELD_MAX seconds, should this one not come to it.
"""

import argparse
import ctypes
import errno
import fcntl
import json
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

# ioctls (linux/fs.h; XFS_IOC_GOINGDOWN, which ext4 has too).
FIFREEZE, FITHAW, GOINGDOWN = 0xC0045877, 0xC0045878, 0x8004587D
# frazil's own (docs/freeze.md).
FRAZIL_FREEZE, FRAZIL_THAW, FRAZIL_SHUTDOWN = 0xC018FA40, 0x4008FA41, 0x4004FA42
MODES = {0: "default", 1: "logflush", 2: "nologflush"}
HELD_MAX = 60
IMAGE_BYTES = 512 << 20
WRITERS = 4


def run(*command, check=True, timeout=120):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.returncode}: {(done.stdout + done.stderr).strip()}")
    return done


def errno_of(action):
    """What an action ends with: "ok", or the name of the error."""
    try:
        action()
        return "ok"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))


class Peer:
    def __init__(self, name, frazil):
        self.name, self.frazil = name, frazil

    def make(self, device):
        run(*{
            "ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
            "xfs": ["mkfs.xfs", "-q", "-f"],
            "btrfs": ["mkfs.btrfs", "-q", "-f"],
            "frazil": [self.frazil, "format", "--quiet", "--force"],
        }[self.name], device)

    def mount(self, device, where):
        if self.name == "frazil":
            run(self.frazil, "mount", "-o", "rw", device, where)
        else:
            run("mount", "-t", self.name, device, where)

    def unmount(self, where):
        if self.name == "frazil":
            # After a shutdown it says that the volume is not marked clean, by an exit status.
            run(self.frazil, "umount", where, check=False)
            if os.path.ismount(where):
                raise RuntimeError(f"{where} was not unmounted")
        else:
            run("umount", where)

    def freeze(self, fd):
        """Returns what thaw needs."""
        if self.name == "frazil":
            request = bytearray(struct.pack("QQQ", HELD_MAX * 1000, 30_000, 0))
            fcntl.ioctl(fd, FRAZIL_FREEZE, request)
            return struct.unpack("QQQ", request)[2]
        fcntl.ioctl(fd, FIFREEZE, 0)
        return None

    def thaw(self, fd, hold):
        if self.name == "frazil":
            fcntl.ioctl(fd, FRAZIL_THAW, struct.pack("Q", hold))
        else:
            fcntl.ioctl(fd, FITHAW, 0)

    def shut_down(self, fd, mode):
        fcntl.ioctl(fd, FRAZIL_SHUTDOWN if self.name == "frazil" else GOINGDOWN, struct.pack("I", mode))

    def check(self, image):
        """What a check that changes nothing says about an image: exit status and the words that matter."""
        command = {
            "ext4": ["e2fsck", "-f", "-n"],
            "xfs": ["xfs_repair", "-n"],
            "btrfs": ["btrfs", "check", "--readonly"],
            "frazil": [self.frazil, "fsck", "-n"],
        }[self.name]
        done = run(*command, image, check=False, timeout=300)
        return done.returncode, done.stdout + done.stderr

    def marked_clean(self, image):
        """Whether the image says of itself that nothing is to be replayed."""
        if self.name == "ext4":
            return "needs_recovery" not in run("dumpe2fs", "-h", image).stdout
        if self.name == "xfs":
            return "log is clean" in "".join(run("xfs_logprint", "-t", image, check=False).stdout.lower()) or \
                "<clean>" in run("xfs_logprint", "-t", image, check=False).stdout.lower()
        if self.name == "btrfs":
            dump = run("btrfs", "inspect-internal", "dump-super", image).stdout
            return any(line.split() == ["log_root", "0"] for line in dump.splitlines())
        return json.loads(run(self.frazil, "show-super", "--json", image).stdout).get("clean")


class Guard:
    """A process that thaws a mount after HELD_MAX seconds, unless it is ended first."""

    def __init__(self, peer, where):
        self.pid = None
        if peer.name == "frazil":
            return  # its freezes end by themselves
        fd = os.open(where, os.O_RDONLY)
        self.pid = os.fork()
        if self.pid == 0:
            time.sleep(HELD_MAX)
            try:
                fcntl.ioctl(fd, FITHAW, 0)
            finally:
                os._exit(0)
        os.close(fd)

    def end(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def load(where, number, counter):
    """Makes, writes, flushes, renames and removes files for ever; counts in shared memory what was done, and every error."""
    here = os.path.join(where, f"load-{number}")
    os.mkdir(here)
    data = os.urandom(20_000)
    n = 0
    while True:
        begin = time.monotonic()
        try:
            path = os.path.join(here, f"f{n % 40}")
            fd = os.open(path, os.O_CREAT | os.O_WRONLY)
            os.write(fd, data[: n * 977 % 20_000])
            if n % 4 == 0:
                os.fsync(fd)
            os.close(fd)
            os.rename(path, os.path.join(here, f"g{n % 40}"))
            if n % 3 == 0:
                os.unlink(os.path.join(here, f"g{n % 40}"))
        except OSError as error:
            counter[1] += 1
            counter[2] = error.errno
        counter[0] += 1
        counter[3] = max(counter[3], int((time.monotonic() - begin) * 1e6))
        n += 1


class Load:
    """Some writers at work."""

    def __init__(self, where, writers=WRITERS):
        import mmap
        self.memory = mmap.mmap(-1, 4096)
        self.counters, self.pids = [], []
        for number in range(writers):
            counter = (ctypes.c_int64 * 4).from_buffer(self.memory, number * 32)
            self.counters.append(counter)
            pid = os.fork()
            if pid == 0:
                try:
                    load(where, number, counter)
                finally:
                    os._exit(1)
            self.pids.append(pid)

    def done(self):
        return sum(counter[0] for counter in self.counters)

    def errors(self):
        return sum(counter[1] for counter in self.counters), {errno.errorcode.get(c[2], str(c[2])) for c in self.counters if c[1]}

    def end(self):
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        for pid in self.pids:
            os.waitpid(pid, 0)


class Disk:
    """A loop device on a file."""

    def __init__(self, image, bytes_=IMAGE_BYTES):
        self.image = image
        with open(image, "wb") as file:
            file.truncate(bytes_)
        self.device = run("losetup", "--find", "--show", image).stdout.strip()

    def drop(self):
        run("losetup", "-d", self.device, check=False)
        os.unlink(self.image)


def shown(where):
    """Options of the mount and of the filesystem, as /proc/self/mountinfo has them."""
    for line in open("/proc/self/mountinfo"):
        fields = line.split()
        if fields[4] == where:
            dash = fields.index("-")
            return fields[5].split(",")[0] + "/" + ",".join(o for o in fields[dash + 3].split(",") if o in ("ro", "rw", "shutdown", "emergency_ro"))
    return "not mounted"


def median(values):
    return sorted(values)[len(values) // 2] if values else float("nan")


def freezing(peer, where, image, rounds):
    """Freezes a mount under load again and again, copies its device some of the times, and checks the copies."""
    results = {"freeze_ms": [], "thaw_ms": [], "moved": 0, "reads": [], "copies": [], "clean": []}
    with open(os.path.join(where, "readable"), "wb") as file:
        file.write(os.urandom(1 << 20))
    run("sync", "-f", where)
    fd = os.open(where, os.O_RDONLY)
    writers = Load(where)
    try:
        time.sleep(1)
        for round_ in range(rounds):
            time.sleep(0.1)
            guard = Guard(peer, where)
            hold = None
            frozen = False
            try:
                begin = time.monotonic()
                hold = peer.freeze(fd)
                frozen = True
                results["freeze_ms"].append((time.monotonic() - begin) * 1e3)
                time.sleep(0.02)
                before = writers.done()
                results["reads"].append(errno_of(lambda: open(os.path.join(where, "readable"), "rb").read(4096)))
                again = errno_of(lambda: peer.freeze(fd)) if peer.name != "frazil" else "ok (held twice)"
                time.sleep(0.05)
                results["moved"] += writers.done() - before
                results["again"] = again
                if image and round_ % max(rounds // 4, 1) == 0:
                    copy = image + f".copy{round_}"
                    run("cp", "--sparse=always", image, copy)
                    results["copies"].append(copy)
            finally:
                if frozen:
                    begin = time.monotonic()
                    peer.thaw(fd, hold)
                    results["thaw_ms"].append((time.monotonic() - begin) * 1e3)
                guard.end()
        time.sleep(0.3)
    finally:
        results["errors"] = writers.errors()
        results["longest_ms"] = max(counter[3] for counter in writers.counters) / 1e3
        writers.end()
        os.close(fd)
    return results


def print_freezing(name, r):
    millis = sorted(r["freeze_ms"])
    count, kinds = r["errors"]
    print(f"| {name} | {median(millis):.0f} / {millis[-1]:.0f} ms | {median(r['thaw_ms']):.1f} ms | "
          f"{'they wait' if not r['moved'] else str(r['moved']) + ' operations went on'} | {count} {' '.join(sorted(kinds))} | "
          f"{', '.join(sorted(set(r['reads'])))} | {r['again']} | {r.get('verdict', 'asked from outside')} |", flush=True)


def shutting_down(peer, device, where, mode, cycle=True):
    """Shuts a mount down, and says what is left of it."""
    def put(name, sync):
        fd = os.open(os.path.join(where, name), os.O_CREAT | os.O_WRONLY)
        os.write(fd, b"x" * 10_000)
        if sync:
            os.fsync(fd)
        return fd

    os.close(put("cold", True))
    if cycle:
        peer.unmount(where)
        peer.mount(device, where)
    open_fd = put("flushed", True)
    unsynced_fd = put("not-flushed", False)
    root = os.open(where, os.O_RDONLY)
    result = {"ioctl": errno_of(lambda: peer.shut_down(root, mode))}
    if result["ioctl"] != "ok":
        os.close(root), os.close(open_fd), os.close(unsynced_fd)
        return result
    path = lambda name: os.path.join(where, name)
    result["write"] = errno_of(lambda: os.pwrite(open_fd, b"y", 0))
    result["fsync of what is durable"] = errno_of(lambda: os.fsync(open_fd))
    result["fsync of what is not"] = errno_of(lambda: os.fsync(unsynced_fd))
    result["create"] = errno_of(lambda: os.close(os.open(path("new"), os.O_CREAT | os.O_WRONLY)))
    result["mkdir"] = errno_of(lambda: os.mkdir(path("dir")))
    result["unlink"] = errno_of(lambda: os.unlink(path("flushed")))
    result["read of what is cached"] = errno_of(lambda: open(path("flushed"), "rb").read(1))
    result["read of what is not"] = errno_of(lambda: open(path("cold"), "rb").read(1))
    result["stat"] = errno_of(lambda: os.stat(path("flushed")))
    result["readdir"] = errno_of(lambda: os.listdir(where))
    result["shutting down again"] = errno_of(lambda: peer.shut_down(root, mode))
    result["freeze"] = errno_of(lambda: peer.thaw(root, peer.freeze(root)))
    time.sleep(0.5)
    result["shown, a file open for writing"] = shown(where)
    os.close(open_fd), os.close(unsynced_fd)
    time.sleep(1)
    result["shown, none open"] = shown(where)
    os.close(root)
    if cycle:
        peer.unmount(where)
        peer.mount(device, where)
        there = {name: os.path.exists(path(name)) and os.path.getsize(path(name)) for name in ("flushed", "not-flushed")}
        result["after"] = ", ".join(f"{name}: {'gone' if size is False else str(size) + ' bytes'}" for name, size in there.items())
    return result


def no_room(peer, frazil):
    """A device that promises more than it has: a sparse file in a full tmpfs. What writers see, whether a freeze ends, and what is left."""
    result = {}
    with tempfile.TemporaryDirectory() as base:
        thin, where = os.path.join(base, "thin"), os.path.join(base, "mnt")
        os.mkdir(thin), os.mkdir(where)
        run("mount", "-t", "tmpfs", "-o", "size=192m", "none", thin)
        disk = None
        mounted = False
        try:
            disk = Disk(os.path.join(thin, "image"))
            peer.make(disk.device)
            peer.mount(disk.device, where)
            mounted = True
            data, first = os.urandom(1 << 20), None
            fd = os.open(os.path.join(where, "big"), os.O_CREAT | os.O_WRONLY)
            for n in range(300):
                how = errno_of(lambda: (os.write(fd, data), os.fsync(fd)))
                if how != "ok":
                    first = f"{how} after {n} MiB"
                    break
            result["first error of write + fsync"] = first or "none"
            result["next write + fsync"] = errno_of(lambda: (os.write(fd, data), os.fsync(fd)))
            os.close(fd)
            result["create"] = errno_of(lambda: os.close(os.open(os.path.join(where, "new"), os.O_CREAT | os.O_WRONLY)))
            time.sleep(1)
            result["shown"] = shown(where)
            root = os.open(where, os.O_RDONLY)
            guard = Guard(peer, where)
            begin = time.monotonic()
            hold = []
            result["freeze"] = errno_of(lambda: hold.append(peer.freeze(root)))
            result["freeze"] += f", {time.monotonic() - begin:.1f} s"
            if hold:
                peer.thaw(root, hold[0])
            guard.end()
            os.close(root)
            result["shown then"] = shown(where)
            # The pool grows.
            run("mount", "-o", "remount,size=1g", thin)
            time.sleep(1)
            result["with room again: create"] = errno_of(lambda: os.close(os.open(os.path.join(where, "more"), os.O_CREAT | os.O_WRONLY)))
            how = []
            fd = os.open(os.path.join(where, "more"), os.O_RDWR | os.O_CREAT) if result["with room again: create"] == "ok" else None
            if fd is not None:
                how.append(errno_of(lambda: (os.write(fd, data), os.fsync(fd))))
                os.close(fd)
            result["with room again: write + fsync"] = ", ".join(how) or "-"
            peer.unmount(where)
            mounted = False
            status, text = peer.check(disk.image)
            result["check afterwards"] = f"exit {status}"
            result["check text"] = text[-300:]
        finally:
            if mounted:
                run("umount", "-l", where, check=False)
            if disk:
                run("losetup", "-d", disk.device, check=False)
            run("umount", "-l", thin, check=False)
    return result


def print_answers(title, answers):
    """One column per filesystem."""
    print(f"\n{title}\n\n| | {' | '.join(answers)} |\n|---|{'---|' * len(answers)}")
    questions = list(dict.fromkeys(q for a in answers.values() for q in a if q != "check text"))
    for question in questions:
        print(f"| {question} | {' | '.join(str(a.get(question, '-')) for a in answers.values())} |")
    sys.stdout.flush()


def with_disk(directory, peer, action):
    where = tempfile.mkdtemp()
    disk = Disk(os.path.join(directory, f"freeze-peers-{peer.name}.img"))
    try:
        peer.make(disk.device)
        peer.mount(disk.device, where)
        try:
            return action(disk, where)
        finally:
            if os.path.ismount(where):
                peer.unmount(where)
    finally:
        disk.drop()
        os.rmdir(where)


def after_a_mount(peer, image):
    """The exit status of the check after an image was mounted and unmounted once."""
    where = tempfile.mkdtemp()
    device = run("losetup", "--find", "--show", image).stdout.strip()
    try:
        if peer.name == "xfs":
            run("mount", "-t", "xfs", "-o", "nouuid", device, where)
        else:
            peer.mount(device, where)
        peer.unmount(where)
    finally:
        run("losetup", "-d", device, check=False)
        os.rmdir(where)
    return peer.check(image)[0]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", default="target/bench")
    parser.add_argument("--frazil", default="target/release/frazil")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--only", default="ext4,xfs,btrfs,frazil")
    parser.add_argument("--inside", help="ask what is mounted here, and nothing else")
    parser.add_argument("--shutdown", type=int, help="with --inside: only shut it down, in this mode")
    parser.add_argument("--name", default="bcachefs", help="with --inside: what it is")
    arguments = parser.parse_args()
    print(f"Linux {platform.release()}, {time.strftime('%Y-%m-%d')}, load {os.getloadavg()[0]:.1f}")
    if arguments.inside:
        peer = Peer(arguments.name, arguments.frazil)
        if arguments.shutdown is not None:
            answers = shutting_down(peer, None, arguments.inside, arguments.shutdown, cycle=False)
            print_answers(f"shut down, {MODES[arguments.shutdown]}", {arguments.name: answers})
        else:
            print_freezing(arguments.name, freezing(peer, arguments.inside, None, arguments.rounds))
        return
    if os.geteuid():
        sys.exit("error: loop devices and mounts need root: run as root")
    os.makedirs(arguments.dir, exist_ok=True)
    peers = [Peer(name, os.path.abspath(arguments.frazil)) for name in arguments.only.split(",")]

    print("\n| | freeze: median / longest | thaw | writers | their errors | readers | frozen again | copies: what the check says |\n|---|---|---|---|---|---|---|---|")
    for peer in peers:
        def freeze(disk, where):
            result = freezing(peer, where, disk.image, arguments.rounds)
            verdicts = []
            for copy in result["copies"]:
                status, text = peer.check(copy)
                verdict = f"exit {status}, marked {'clean' if peer.marked_clean(copy) else 'not clean'}"
                if status:
                    verdict += f"; after a mount exit {after_a_mount(peer, copy)}"
                    say = [line for line in text.splitlines() if line.strip()]
                    print(f"{peer.name}: {' / '.join(say)[:1000]}", file=sys.stderr)
                verdicts.append(verdict)
                os.unlink(copy)
            result["verdict"] = "; ".join(f"{verdicts.count(v)} × {v}" for v in sorted(set(verdicts)))
            return result
        print_freezing(peer.name, with_disk(arguments.dir, peer, freeze))
    for mode in MODES:
        answers = {}
        for peer in peers:
            def down(disk, where):
                answer = shutting_down(peer, disk.device, where, mode)
                if answer["ioctl"] == "ok":
                    peer.unmount(where)
                    status, text = peer.check(disk.image)
                    answer["check after that mount"] = f"exit {status}"
                return answer
            answers[peer.name] = with_disk(arguments.dir, peer, down)
        print_answers(f"Shut down, {MODES[mode]}", answers)
    answers = {}
    for peer in peers:
        answers[peer.name] = no_room(peer, arguments.frazil)
    print_answers("A device that has no more room (a sparse file in a full tmpfs)", answers)


if __name__ == "__main__":
    main()
