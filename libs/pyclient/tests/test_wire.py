"""The bytes of messages, and what stands in generated files."""

import pathlib
import re
import subprocess
import sys
import unittest

import msgpack
import optserve
from optserve import _errors as e
from optserve import _messages as m
from optserve import _wire

ROOT = pathlib.Path(__file__).resolve().parents[3]
JOB = "00" * 15 + "01"


def frame(kind, body, version=1):
    return msgpack.packb([version, kind, body], use_bin_type=True)


def is_part(part, whole):
    """Whether what is in `part` stands in `whole`, which may have more fields."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(name in whole and is_part(part[name], whole[name]) for name in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) == len(whole) and all(map(is_part, part, whole))
    return isinstance(part, bool) == isinstance(whole, bool) and part == whole  # C++ writes 3.0 as 3


class Bytes(unittest.TestCase):
    def test_every_message_of_clients_is_read_as_cpp_writes_it(self):
        names = {kind.__name__ for kind in m.MESSAGES.values()}
        for name in names:
            data = bytes.fromhex((ROOT / f"tests/data/protocol_v1/{name}.hex").read_text())
            message = _wire.decode(data)
            self.assertEqual(type(message).__name__, name)
            self.assertEqual(_wire.decode(_wire.encode(message)), message)
            given = msgpack.unpackb(data, raw=False)[2]
            again = msgpack.unpackb(_wire.encode(message), raw=False)[2]
            self.assertTrue(is_part(again, given), name)
        self.assertEqual(len(names), 24)

    def test_the_page_of_the_protocol_shows_frames_as_they_are(self):
        page = " ".join((ROOT / "docs/protocol.md").read_text(encoding="utf-8").split())
        job = m.JobSpec(key="k", model="m", prompt="Hi")
        for data in (_wire.encode(m.Ping(1)), _wire.encode_submit(7, True, [_wire.encode_struct(job)]),
                     _wire.encode(m.SubmitReply(7, [m.SubmitOutcome("00112233445566778899aabbccddeeff")]))):
            self.assertIn(data.hex(" "), page)
        for text in re.findall(r"^ {4}(93(?: [0-9a-f]{2})+(?:\n {4}[0-9a-f ]+)*)$",
                               (ROOT / "docs/protocol.md").read_text(encoding="utf-8"), flags=re.M):
            _wire.decode(bytes.fromhex(text))

    def test_fields_with_their_defaults_are_not_sent(self):
        body = msgpack.unpackb(_wire.encode_struct(m.JobSpec(key="k", prompt="p")), raw=False)
        self.assertEqual(body, {"key": "k", "prompt": "p"})

    def test_absent_fields_keep_their_defaults_and_unknown_ones_are_ignored(self):
        message = _wire.decode(frame(12, {"later": [1, {"a": 2}]}))
        self.assertEqual(message, m.Ping(0))
        events = _wire.decode(frame(4, {"events": [[bytes(16), 3, "abc"]]}))
        self.assertEqual(events.events[0], m.JobEvent("00" * 16, 3, "abc"))
        longer = [bytes(16), 3, "abc", 1, 0, 0, 2, 0, -1, True, "later"]
        self.assertTrue(_wire.decode(frame(4, {"events": [longer]})).events[0].restarted)

    def test_wrong_messages_are_refused_with_the_place(self):
        for data, why in (
            (b"", "not well-formed"), (b"\xc1", "not well-formed"), (msgpack.packb([1, 12]), "expected"),
            (frame(12, {"number": "1"}), "Ping.number: expected an integer"),
            (frame(12, {"number": -1}), "Ping.number: -1 is out of range"),
            (frame(12, {"number": 1.0}), "expected an integer"), (frame(12, {"number": True}), "expected an integer"),
            (frame(12, []), "expected a map"), (frame(12, {}) + b"\x00", "not well-formed"),
            (frame(11, {"code": 99}), "Refused.code: expected a number from 1 to 15"),
            (frame(7, {"job": b"short"}), "GetJob.job: expected an id"),
            (b"\x93\x01\x0c\x82\xa1a\x01\xa1a\x02", "occurs twice"),
            (frame(11, {"message": "x"}).replace(b"\xa1x", b"\xa1\xff"), "not well-formed"),
        ):
            with self.assertRaisesRegex(e.BadRequest, why):
                _wire.decode(data)
        for data in (frame(12, {}, 2), frame(99, {}), frame(12, {"!must": 1})):
            with self.assertRaises(e.UnsupportedVersion):
                _wire.decode(data)

    def test_wrong_values_are_refused_before_they_are_sent(self):
        for job in (m.JobSpec(seed=2**64), m.JobSpec(top_p=float("nan")), m.JobSpec(top_k=1.5), m.JobSpec(prompt=b"x"),
                    m.JobSpec(prompt="\ud800"), m.JobSpec(ignore_eos=1), m.JobSpec(stop="abc"),
                    m.JobSpec(prompt_ids=[2**31]), m.JobSpec(profile=7)):
            with self.assertRaises(e.BadRequest):
                _wire.encode_struct(job)
        with self.assertRaises(e.BadRequest):
            _wire.encode(m.GetJob(1, "no id"))


class Made(unittest.TestCase):
    def test_messages_are_those_of_the_protocol(self):
        subprocess.run([sys.executable, ROOT / "libs/pyclient/make_messages.py", "--check"], check=True)

    def test_every_error_code_has_a_class(self):
        for code in m.ErrorCode:
            kind = e.CLASSES[int(code)]
            self.assertEqual(kind.__name__, "".join(word.capitalize() for word in code.name.split("_")))
            self.assertIs(getattr(optserve, kind.__name__), kind)
            self.assertEqual(kind("x").name, m.ERRORS[code][0])

    def test_the_version_is_that_of_the_project(self):
        version = re.search(r"project\(optserve VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text()).group(1)
        self.assertEqual(optserve.__version__, version)

    def test_everything_public_is_exported(self):
        self.assertEqual(sorted(optserve.__all__), optserve.__all__)
        for name in optserve.__all__:
            self.assertTrue(hasattr(optserve, name), name)


if __name__ == "__main__":
    unittest.main()
