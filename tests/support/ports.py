"""Ports for the processes of a test."""

import random
import socket

# Below the range that Linux takes for outgoing connections, any of which may hold a port for minutes, and beside the
# range from which `optserve up` chooses.
FIRST_PORT, LAST_PORT = 10_000, 19_999
HOST = "127.0.0.1"

# Linux frees these when the process ends, however it ends. Only tests that run beside this one look at them.
reservations = []


def reserve(port):
    """Whether no other test has the port. It belongs to this one until the process ends."""
    reservation = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        reservation.bind(f"\0optserve-test-port-{port}")
    except OSError:
        reservation.close()
        return False
    reservations.append(reservation)
    return True


def is_free(port, host):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # servers set it too
        try:
            one.bind((host, port))
        except OSError:
            return False
        return True


def free_port(host=HOST, in_row=1):
    """The first of `in_row` successive ports that nothing uses and no other test is given."""
    for _ in range(1000):
        first = random.randint(FIRST_PORT, LAST_PORT - in_row)
        if all(is_free(first + i, host) and reserve(first + i) for i in range(in_row)):
            return first
    raise OSError(f"found no {in_row} free ports in a row of {host} between {FIRST_PORT} and {LAST_PORT}")
