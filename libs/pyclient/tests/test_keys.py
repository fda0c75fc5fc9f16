"""Keys: what is read, what is refused, and connections that have them."""

import os
import pathlib
import tempfile
import threading
import time
import unittest
from unittest import mock

import optserve
import zmq
import zmq.utils.z85
from optserve import _messages as m
from optserve import _wire
from optserve._keys import PUBLIC_PREFIX, SECRET_PREFIX, Keys, find_keys, is_local


def new_pair():
    public, secret = (zmq.utils.z85.decode(key) for key in zmq.curve_keypair())
    return PUBLIC_PREFIX + public.hex(), SECRET_PREFIX + secret.hex()


class KeyFiles(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.public, self.secret = new_pair()

    def write(self, name, text, mode=0o600):
        path = pathlib.Path(self.folder.name, name)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return str(path)

    def refusal(self, *arguments):
        with self.assertRaises(optserve.BadRequest) as caught:
            Keys(*arguments)
        self.assertNotIn(self.secret[len(SECRET_PREFIX):][:16], str(caught.exception))
        return str(caught.exception)

    def test_come_from_files_and_texts(self):
        secret = self.write("own.secret", f"# mine\n{self.secret}\n")
        servers = self.write("servers", f"{new_pair()[0]}\n{new_pair()[0]}\n", 0o644)
        keys = Keys(secret, [servers, self.public])
        self.assertEqual(keys.public_text, self.public)
        self.assertEqual(len(keys.servers), 3)
        self.assertEqual(Keys(self.secret, [self.public]).public_text, self.public)

    def test_of_others_are_refused(self):
        for mode in (0o644, 0o640, 0o660, 0o604):
            self.assertIn("chmod 600", self.refusal(self.write("own", self.secret, mode), [self.public]))
        self.assertIn("chmod go-w", self.refusal(self.secret, [self.write("s", self.public, 0o664)]))

    def test_that_are_none_are_refused_without_repeating_them(self):
        self.assertIn("this is a public key", self.refusal(self.public, [self.public]))
        self.assertIn("this is a secret key", self.refusal(self.secret, [self.secret]))
        self.assertIn("64", self.refusal(self.secret + "0", [self.public]))
        two = self.write("two", f"{self.secret}\n{self.secret}")
        self.assertIn("expected one line", self.refusal(two, [self.public]))
        self.assertIn("server_key", self.refusal(self.secret, []))
        self.assertIn("regular file", self.refusal(self.folder.name, [self.public]))

    def test_come_from_the_environment_when_none_are_given(self):
        with mock.patch.dict(os.environ, {"OPTSERVE_SECRET_KEY": self.secret, "OPTSERVE_SERVER_KEY": self.public}):
            self.assertEqual(find_keys("", "", ["tcp://s:1"], False).public_text, self.public)
        with mock.patch.dict(os.environ, {"OPTSERVE_SERVER_KEY": self.public}):
            with self.assertRaises(optserve.BadRequest):
                find_keys("", "", ["tcp://127.0.0.1:1"], False)

    def test_are_not_shown(self):
        self.assertNotIn(self.secret[len(SECRET_PREFIX):], repr(Keys(self.secret, [self.public])))

    def test_nothing_leaves_the_machine_without_them(self):
        for endpoint in ("tcp://127.0.0.1:1", "tcp://localhost:1", "tcp://[::1]:1", "ipc:///x"):
            self.assertTrue(is_local(endpoint), endpoint)
        for endpoint in ("tcp://10.0.0.1:1", "tcp://scheduler:1", "tcp://0.0.0.0:1", "tcp://localhost.example:1"):
            self.assertFalse(is_local(endpoint), endpoint)
        with self.assertRaisesRegex(optserve.BadRequest, "optserve keys new"):
            optserve.Client("tcp://scheduler:5555")
        optserve.Client("tcp://scheduler:5555", insecure=True).close()


class Scheduler(threading.Thread):
    """Answers pings and status to those whose keys are in `allowed`."""

    def __init__(self, secret, allowed):
        super().__init__(daemon=True)
        self.context = zmq.Context()
        self.zap = self.context.socket(zmq.REP)
        self.zap.bind("inproc://zeromq.zap.01")
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.CURVE_SERVER, 1)
        self.socket.setsockopt(zmq.CURVE_SECRETKEY, bytes.fromhex(secret[len(SECRET_PREFIX):]))
        self.endpoint = f"tcp://127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"
        self.allowed, self.is_over = allowed, False

    def run(self):
        poller = zmq.Poller()
        poller.register(self.zap, zmq.POLLIN)
        poller.register(self.socket, zmq.POLLIN)
        while not self.is_over:
            for socket, _ in poller.poll(50):
                parts = socket.recv_multipart()
                if socket is self.zap:
                    code = b"200" if PUBLIC_PREFIX + parts[6].hex() in self.allowed else b"400"
                    socket.send_multipart([b"1.0", parts[1], code, b"", b"", b""])
                    continue
                message = _wire.decode(parts[1])
                if isinstance(message, m.Ping):
                    socket.send_multipart([parts[0], _wire.encode(m.Pong(message.number, 1))])
                elif isinstance(message, m.GetStatus):
                    socket.send_multipart([parts[0], _wire.encode(m.SystemStatus(message.request, 1))])
        self.context.destroy(0)


class Connections(unittest.TestCase):
    def setUp(self):
        self.server_public, self.server_secret = new_pair()
        self.public, self.secret = new_pair()
        self.scheduler = Scheduler(self.server_secret, {self.public})
        self.scheduler.start()
        self.addCleanup(self.end)

    def end(self):
        self.scheduler.is_over = True
        self.scheduler.join()

    def status(self, secret, server, timeout=5.0):
        with optserve.Client(self.scheduler.endpoint, timeout=timeout, secret_key=secret, server_key=server) as client:
            return client.status()

    def test_with_an_allowed_key_are_answered(self):
        self.assertTrue(self.status(self.secret, self.server_public))

    def test_find_the_key_of_the_scheduler_among_several(self):
        self.assertTrue(self.status(self.secret, [new_pair()[0], self.server_public]))

    def test_with_another_key_are_told_so_at_once(self):
        public, secret = new_pair()
        begun = time.monotonic()
        with self.assertRaisesRegex(optserve.Unavailable, "does not allow the key " + public):
            self.status(secret, self.server_public, 30.0)
        self.assertLess(time.monotonic() - begun, 5)

    def test_with_a_wrong_key_of_the_scheduler_are_told_so(self):
        with self.assertRaisesRegex(optserve.Unavailable, "server_key"):
            self.status(self.secret, new_pair()[0], 2.0)

    def test_show_the_key_that_the_file_holds_now(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "own")
            path.write_text(new_pair()[1], encoding="utf-8")
            path.chmod(0o600)
            with optserve.Client(self.scheduler.endpoint, timeout=10.0, secret_key=str(path),
                                 server_key=self.server_public) as client:
                with self.assertRaises(optserve.Unavailable):
                    client.status()
                path.write_text(self.secret, encoding="utf-8")
                for _ in range(5):
                    try:
                        client.status()
                        return
                    except optserve.Unavailable:
                        pass
                self.fail("the new key was not used")


if __name__ == "__main__":
    unittest.main()
