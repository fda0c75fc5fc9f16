"""Which of several schedulers gets a job, and which are asked about one."""

import json
import pathlib
import random
import unittest

from optserve import _errors as e
from optserve import _messages as m
from optserve._choice import _mix, hash_bytes, scheduler_order, split_endpoints, text_digest
from rig import SetRig, good_job, new_id

ROOT = pathlib.Path(__file__).resolve().parents[3]


class Choice(unittest.TestCase):
    def test_is_that_of_the_cpp_library(self):
        vectors = json.loads((ROOT / "tests/conformance/vectors.json").read_text(encoding="utf-8"))
        for vector in vectors["scheduler_orders"]:
            self.assertEqual(scheduler_order(vector["tenant"], vector["key"], vector["endpoints"]), vector["order"])
        self.assertGreater(len(vectors["scheduler_orders"]), 20)

    def test_the_page_of_the_protocol_shows_it_step_by_step(self):
        page = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
        job = hash_bytes(b"one", hash_bytes(b"\0", hash_bytes(b"")))
        self.assertIn(f"`{job:#018x}`", page)
        self.assertIn(f"`{_mix(job):#018x}`", page)
        for i in range(3):
            address = f"tcp://scheduler-{i}:5555"
            hashed = hash_bytes(address.encode())
            self.assertIn(f"| `{address}` | `{hashed:#018x}` | `{_mix(_mix(job) ^ hashed):#018x}` |", page)
        self.assertEqual(scheduler_order("", "one", [f"tcp://scheduler-{i}:5555" for i in range(3)]), [1, 0, 2])

    def test_digests_are_those_of_the_protocol(self):
        protocol = json.loads((ROOT / "docs/protocol.json").read_text(encoding="utf-8"))
        for example in protocol["text_digest"]["examples"]:
            self.assertEqual(text_digest(example["text"].encode()), int(example["digest"], 16))

    def test_does_not_depend_on_the_order_of_the_addresses(self):
        endpoints = [f"tcp://{name}:5555" for name in "abcdefgh"]
        for i in range(100):
            order = [endpoints[j] for j in scheduler_order("t", str(i), endpoints)]
            other = random.sample(endpoints, len(endpoints))
            self.assertEqual(order, [other[j] for j in scheduler_order("t", str(i), other)])

    def test_one_more_scheduler_takes_its_share_and_moves_no_other_key(self):
        few = [f"tcp://10.0.0.{i}:5555" for i in range(4)]
        more = [*few, "tcp://10.0.0.4:5555"]
        before = [scheduler_order("t", str(i), few)[0] for i in range(5_000)]
        after = [scheduler_order("t", str(i), more)[0] for i in range(5_000)]
        self.assertTrue(all(b in (a, 4) for a, b in zip(before, after)))
        self.assertAlmostEqual(after.count(4), 1_000, delta=150)

    def test_lists_of_addresses_are_checked(self):
        self.assertEqual(split_endpoints("a,b"), ["a", "b"])
        for wrong in ("", "a,", "a,,b", "a,b,a", [], ",".join(map(str, range(65)))):
            with self.assertRaises(e.BadRequest):
                split_endpoints(wrong)


class SeveralSchedulers(unittest.TestCase):
    def key_of(self, rig, scheduler):
        """A key that prefers this scheduler."""
        return next(str(i) for i in range(1000) if scheduler_order("", str(i), rig.endpoints)[0] == scheduler)

    def test_a_bulk_is_split_by_key_and_answered_in_order(self):
        rig = SetRig(3)
        jobs = [rig.accepting(i) for i in range(3)]
        rig.pass_time(0.5)
        specs = [good_job(key=str(i)) for i in range(30)]
        outcomes, = rig.submit(specs)
        for spec, outcome in zip(specs, outcomes):
            first = scheduler_order("", spec.key, rig.endpoints)[0]
            self.assertEqual(outcome.job, jobs[first][spec.key])
        self.assertEqual(sum(map(len, jobs)), 30)

    def test_the_next_takes_what_the_first_was_never_sent(self):
        rig = SetRig(2)
        taken = [rig.accepting(i) for i in range(2)]
        rig.down = {0}
        rig.pass_time(0.5)
        done = rig.submit([good_job(key=self.key_of(rig, 0))])
        rig.pass_time(0.2)
        self.assertEqual(done, [])
        rig.pass_time(2)
        self.assertEqual(len(done), 1)
        self.assertEqual([len(each) for each in taken], [0, 1])

    def test_what_may_have_arrived_stays(self):
        rig = SetRig(2)
        taken = rig.accepting(1)
        rig.pass_time(0.5)
        done = rig.submit([good_job(key=self.key_of(rig, 0))])
        rig.down = {0}
        rig.pass_time(9)
        self.assertEqual(done, [])
        rig.pass_time(2)
        self.assertIsInstance(done[0], e.Unavailable)
        self.assertEqual(taken, {})

    def test_a_busy_one_offers_the_job_to_the_next(self):
        rig = SetRig(2)
        taken = rig.accepting(1)
        rig.answers[0] = lambda message: isinstance(message, m.Submit) and rig.receive(0, m.SubmitReply(
            message.request, [m.SubmitOutcome(error=m.ErrorCode.BUSY) for _ in message.jobs]))
        rig.pass_time(0.5)
        outcomes, = rig.submit([good_job(key=self.key_of(rig, 0))])
        self.assertEqual([outcomes[0].job], list(taken.values()))

    def test_what_was_handed_over_twice_is_not_offered_to_another(self):
        rig = SetRig(2)
        taken = rig.accepting(1)
        rig.pass_time(0.5)
        done = rig.submit([good_job(key=self.key_of(rig, 0))])
        rig.pass_time(4)  # it may have arrived twice
        rig.answers[0] = lambda message: isinstance(message, m.Submit) and rig.receive(0, m.SubmitReply(
            message.request, [m.SubmitOutcome(error=m.ErrorCode.BUSY)]))
        rig.pass_time(8)
        self.assertEqual(taken, {})
        self.assertEqual([outcomes[0].error for outcomes in done], [m.ErrorCode.BUSY])

    def test_what_could_not_be_handed_over_may_go_to_another(self):
        rig = SetRig(2)
        taken = rig.accepting(1)
        rig.pass_time(0.5)
        rig.down = {0}  # which the client does not know yet
        done = rig.submit([good_job(key=self.key_of(rig, 0))])
        rig.pass_time(2)
        self.assertEqual(len(taken), 1)
        self.assertEqual([outcomes[0].job for outcomes in done], list(taken.values()))

    def test_a_job_of_this_client_is_asked_for_where_it_is(self):
        rig = SetRig(3)
        for i in range(3):
            rig.accepting(i)
        rig.pass_time(0.5)
        outcomes, = rig.submit([good_job(key=self.key_of(rig, 1))])
        rig.set.ask_job(outcomes[0].job, m.GetJob(0, outcomes[0].job), rig.now + 9, rig.now, lambda *_: None)
        rig.collect()
        asked = [sum(isinstance(message, m.GetJob) for message in sent) for sent in rig.sent]
        self.assertEqual(asked, [0, 1, 0])

    def ask_about_an_unknown_job(self, rig):
        job, answers = new_id(), []
        rig.set.ask_job(job, m.GetJob(0, job), rig.now + 9, rig.now, lambda answer, *_: answers.append(answer))
        rig.collect()
        rig.pass_time(10)
        return answers[0]

    def test_an_unknown_job_is_not_found_once_all_have_said_so(self):
        rig = SetRig(2)

        def refuse(i):
            return lambda message: isinstance(message, m.GetJob) and rig.receive(
                i, m.Refused(message.request, m.ErrorCode.NOT_FOUND, "no such job"))

        rig.answers = [refuse(0), refuse(1)]
        rig.pass_time(0.5)
        self.assertIsInstance(self.ask_about_an_unknown_job(rig), e.NotFound)
        rig.down = {1}
        self.assertIsInstance(self.ask_about_an_unknown_job(rig), e.Unavailable)

    def test_no_key_is_accepted_twice_whatever_fails(self):
        seed = random.randrange(2**32)
        dice = random.Random(seed)
        with self.subTest(seed=seed):
            rig = SetRig(3, seed)
            accepted = [{}, {}, {}]

            def answer(i):
                def play(message):
                    if not isinstance(message, m.Submit) or dice.random() < 0.2:
                        return
                    outcomes = []
                    for job in message.jobs:
                        if job.key not in accepted[i] and dice.random() < 0.3:
                            outcomes.append(m.SubmitOutcome(error=m.ErrorCode.BUSY))
                        else:
                            outcomes.append(m.SubmitOutcome(accepted[i].setdefault(job.key, new_id())))
                    if dice.random() < 0.7:
                        rig.receive(i, m.SubmitReply(message.request, outcomes))

                return play

            rig.answers = [answer(i) for i in range(3)]
            rig.pass_time(0.5)
            done = []
            for _ in range(60):
                done.append(rig.submit([good_job() for _ in range(3)]))
                rig.down = {i for i in range(3) if dice.random() < 0.2}
                rig.pass_time(dice.random())
            rig.down = set()
            rig.pass_time(12)
            self.assertTrue(all(len(each) == 1 for each in done))
            keys = [key for each in accepted for key in each]
            self.assertEqual(len(keys), len(set(keys)))


if __name__ == "__main__":
    unittest.main()
