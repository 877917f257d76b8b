#!/usr/bin/env python3
"""A client of the origin's dialect: asks for a task, pretends to work on it, reports, until all is settled.

The dialect is text over TCP. Every message stands between two tokens. The client sends a dictionary of the units it has
done, `{}` or `{11: 2}`; the server answers each message with one decimal number: a task (>= 0), -1 (all is settled) or
-2 (wait, and ask again). Nothing but Python 3 is needed:

    tenfold serve --data-dir ./data &
    tenfold create toy --range 0..20 --runs 10
    python3 examples/origin_client.py --work-seconds 0.01

Ends with 0 when all is settled, with 1 when the server is gone.
"""

import argparse
import random
import socket
import sys
import time

START = b"crrrazy_msg_START"
END = b"crrrazy_msg_END"

# Seconds without an answer after which the last message is sent again. Each copy is answered, too: from then on the
# answers run ahead of the messages by one, and each of them is a task that this client may work on.
RESEND_AFTER = 11.0
# Seconds to wait after -2.
WAIT = 1.5

SETTLED = -1
ASK_AGAIN = -2


class Connection:
    """Messages out, numbers in."""

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port))
        self.received = b""

    def exchange(self, units_by_task):
        """Sends what was done and returns the next answer, however often it takes to ask for it."""
        message = START + repr(units_by_task).encode() + END
        self.socket.sendall(message)
        deadline = time.monotonic() + RESEND_AFTER
        while True:
            answer = self.take_answer()
            if answer is not None:
                return answer
            patience = deadline - time.monotonic()
            if patience <= 0:
                self.socket.sendall(message)
                deadline = time.monotonic() + RESEND_AFTER
                continue
            self.socket.settimeout(patience)
            try:
                data = self.socket.recv(4096)
            except socket.timeout:
                continue
            finally:
                self.socket.settimeout(None)
            if not data:
                raise ConnectionError("the server closed the connection")
            self.received += data

    def take_answer(self):
        """The first whole answer among the bytes received, or None."""
        start = self.received.find(START)
        if start < 0:
            return None
        end = self.received.find(END, start)
        if end < 0:
            return None
        answer = int(self.received[start + len(START) : end])
        self.received = self.received[end + len(END) :]
        return answer


def work(connection, seconds, rng, quiet):
    """Works until all is settled; returns how many units were done."""
    units_done = 0
    report = {}
    while True:
        answer = connection.exchange(report)
        if answer == SETTLED:
            return units_done
        if answer == ASK_AGAIN:
            time.sleep(WAIT)
            report = {}
            continue
        units = rng.choice([1, 2])
        time.sleep(seconds * units)
        units_done += units
        report = {answer: units}
        if not quiet:
            print(f"task {answer}: {units} done", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=65432)
    parser.add_argument("--work-seconds", type=float, default=1.0, help="how long one unit takes")
    parser.add_argument("--seed", type=int, default=None, help="decides whether 1 or 2 units are done of a task")
    parser.add_argument("--quiet", action="store_true", help="print only the last line")
    arguments = parser.parse_args()
    try:
        connection = Connection(arguments.host, arguments.port)
        units = work(connection, arguments.work_seconds, random.Random(arguments.seed), arguments.quiet)
    except OSError as error:
        print(f"error: {arguments.host}:{arguments.port}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"all is settled; this client did {units} units")
    return 0


if __name__ == "__main__":
    sys.exit(main())
