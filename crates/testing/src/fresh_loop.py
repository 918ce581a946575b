# Adds a loop device that nobody used before, says its number, and removes it when standard input ends: so it goes however
# the process ends that holds the other side.
import errno, fcntl, os, signal, sys, time

ADD, REMOVE, DETACH = 0x4C80, 0x4C81, 0x4C01

for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
control = os.open("/dev/loop-control", os.O_RDWR)
# Far from those that losetup --find takes.
number = 1000
while True:
    try:
        fcntl.ioctl(control, ADD, number)
        break
    except FileExistsError:
        number += 1
print(number, flush=True)
sys.stdin.read()


def undo(call, *arguments):
    try:
        call(*arguments)
        return True
    except OSError as error:
        return error.errno in (errno.ENODEV, errno.ENOENT, errno.ENXIO)


def detach():
    device = os.open(f"/dev/loop{number}", os.O_RDONLY)
    try:
        fcntl.ioctl(device, DETACH)
    finally:
        os.close(device)


# Once: then it may be somebody else's. As long as it is used it stays.
while not undo(detach):
    time.sleep(0.02)
while not undo(fcntl.ioctl, control, REMOVE, number):
    time.sleep(0.02)
