"""A link of a given rate and latency into the network namespace of a process.

usage: link.py PID OUR_ADDRESS ITS_ADDRESS MEGABITS_A_SECOND ROUND_TRIP_SECONDS

Two TUN devices, one here and one there; this process carries packets from one to the other. `tc netem` would do the
same, but not every kernel has it. It says "ready" and ends, and the devices with it, when standard input is closed.
"""

import collections
import fcntl
import os
import select
import struct
import subprocess
import sys
import time

# linux/if_tun.h
TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02

# Segments of TCP come and go in one piece of up to 64 KiB, as they do with network cards: carrying each by itself
# would take the processors from what is measured. A header says how they are to be cut (linux/virtio_net.h).
HEADER = 10
PACKET = HEADER + 65536

# A router of such a link holds about one round trip of packets; what does not fit waits in the device, or is dropped there.
QUEUE_SECONDS = 0.05

# Seconds between two looks.
PERIOD = 0.001


def device():
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(tun, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)
    return tun, request[:16].rstrip(b"\0").decode()


class Direction:
    def __init__(self, source, target, bytes_a_second, delay):
        self.source, self.target = source, target
        self.bytes_a_second, self.delay = bytes_a_second, delay
        self.under_way = collections.deque()
        self.busy_until = 0.0

    def has_room(self, now):
        return self.busy_until - now < QUEUE_SECONDS

    def take(self, now):
        try:
            while self.has_room(now):
                packet = os.read(self.source, PACKET)
                self.busy_until = max(self.busy_until, now) + (len(packet) - HEADER) / self.bytes_a_second
                self.under_way.append((self.busy_until + self.delay, packet))
        except BlockingIOError:
            pass

    def give(self, now):
        while self.under_way and self.under_way[0][0] <= now:
            try:
                os.write(self.target, self.under_way.popleft()[1])
            except OSError:
                pass  # a device that is full or down loses packets


def main():
    pid, ours, its, megabits, round_trip = sys.argv[1:]
    (near, near_name), (far, far_name) = device(), device()
    run = lambda *command: subprocess.run(command, check=True)
    there = ("nsenter", f"--net=/proc/{pid}/ns/net")
    run("ip", "link", "set", far_name, "netns", pid)
    for name, address, peer, prefix in ((near_name, ours, its, ()), (far_name, its, ours, there)):
        run(*prefix, "ip", "address", "add", address, "peer", peer, "dev", name)
        run(*prefix, "ip", "link", "set", name, "up")
    rate = float(megabits) * 1e6 / 8
    directions = [Direction(near, far, rate, float(round_trip) / 2), Direction(far, near, rate, float(round_trip) / 2)]
    print("ready", flush=True)
    while True:
        busy = any(direction.under_way for direction in directions)
        # While packets are under way, a look now and then carries all that have come.
        readers = [0] if busy else [0] + [direction.source for direction in directions]
        readable, _, _ = select.select(readers, [], [], PERIOD if busy else None)
        if 0 in readable and not os.read(0, 1):
            return
        now = time.monotonic()
        for direction in directions:
            direction.take(now)
            direction.give(now)


main()
