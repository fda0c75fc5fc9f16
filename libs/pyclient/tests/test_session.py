"""What a session sends, repeats and answers, whatever is lost."""

import random
import unittest

from optserve import _errors as e
from optserve import _messages as m
from optserve._choice import text_digest
from optserve._retry_budget import RetryBudget
from optserve._streams import event_cost
from rig import Rig, Seen, event, finished, good_job, new_id


class Calls(unittest.TestCase):
    def call(self, rig, message, timeout=60.0):
        answers = []
        rig.session.call(message, rig.now + timeout, rig.now, lambda answer, _: answers.append(answer))
        rig.collect()
        return answers

    def test_an_unanswered_request_is_repeated_unchanged_and_then_unavailable(self):
        rig = Rig()
        rig.pass_time(0.2)
        answers = self.call(rig, m.GetStatus(), 10)
        rig.pass_time(9.5)
        asked = rig.all(m.GetStatus)
        self.assertIn(len(asked), (3, 4))
        self.assertEqual(len({each.request for each in asked}), 1)
        self.assertEqual(answers, [])
        rig.pass_time(1)
        self.assertIsInstance(answers[0], e.Unavailable)

    def test_the_first_answer_counts(self):
        rig = Rig()
        rig.answer = lambda message: isinstance(message, m.GetStatus) and [
            rig.receive(m.SystemStatus(message.request, queued=i)) for i in range(2)]
        rig.pass_time(0.2)
        answers = self.call(rig, m.GetStatus())
        self.assertEqual([answer.queued for answer in answers], [0])

    def test_are_sent_as_soon_as_the_connection_is_up(self):
        rig = Rig()
        rig.down = True
        rig.pass_time(3)
        self.call(rig, m.GetStatus())
        rig.pass_time(3)
        self.assertEqual(rig.all(m.GetStatus), [])
        rig.down = False
        rig.pass_time(1)
        self.assertEqual(len(rig.all(m.GetStatus)), 1)

    def test_a_refusal_is_the_answer(self):
        rig = Rig()
        rig.answer = lambda message: isinstance(message, m.GetJob) and rig.receive(
            m.Refused(message.request, m.ErrorCode.NOT_FOUND, "no such job"))
        rig.pass_time(0.2)
        answers = self.call(rig, m.GetJob(0, new_id()))
        self.assertIsInstance(answers[0], e.NotFound)
        self.assertEqual(str(answers[0]), "no such job")

    def test_a_backup_is_not_repeated(self):
        rig = Rig()
        rig.pass_time(0.2)
        self.call(rig, m.Backup())
        rig.pass_time(20)
        self.assertEqual(len(rig.all(m.Backup)), 1)

    def test_few_of_many_are_repeated_when_only_pings_are_answered(self):
        rig = Rig()
        rig.pass_time(0.2)
        for _ in range(500):
            self.call(rig, m.GetStatus())
        rig.pass_time(30)
        repeated = len(rig.all(m.GetStatus)) - 500
        self.assertGreater(repeated, 5)
        self.assertLess(repeated, 75)

    def test_all_are_repeated_after_a_lost_connection(self):
        rig = Rig()
        rig.pass_time(0.2)
        for _ in range(100):
            self.call(rig, m.GetStatus())
        rig.term = 2
        rig.pass_time(2)
        self.assertGreaterEqual(len(rig.all(m.GetStatus)), 200)


class SubmitJobs(unittest.TestCase):
    def test_keys_are_given_and_bad_jobs_refused_here(self):
        rig = Rig()
        rig.accept(m.SubmitOutcome(new_id()), m.SubmitOutcome(new_id()))
        rig.pass_time(0.2)
        rig.submit([good_job(), good_job(top_p=2.0), good_job(), good_job(prompt="\ud800"), good_job(seed=-1)])
        self.assertEqual([outcome.error for outcome in rig.outcomes],
                         [None, m.ErrorCode.BAD_REQUEST, None, m.ErrorCode.BAD_REQUEST, m.ErrorCode.BAD_REQUEST])
        keys = [job.key for job in rig.all(m.Submit)[0].jobs]
        self.assertEqual(len(set(keys)), 2)
        self.assertRegex(keys[0], "^[0-9a-f]{32}$")

    def test_only_bad_jobs_need_no_scheduler(self):
        rig = Rig()
        rig.submit([good_job(model="")])
        self.assertEqual(rig.outcomes[0].error, m.ErrorCode.BAD_REQUEST)

    def test_a_lost_reply_is_healed_by_the_same_key(self):
        rig = Rig()
        rig.pass_time(0.2)
        seen, job = Seen(self), new_id()
        rig.submit([good_job()], seen.listener())
        rig.pass_time(1.9)
        self.assertEqual(len(rig.all(m.Submit)), 1)
        rig.accept(m.SubmitOutcome(job, duplicate=True))
        rig.pass_time(1)
        first, second = rig.all(m.Submit)
        self.assertEqual(first, second)
        self.assertEqual(rig.outcomes[0].job, job)
        self.assertEqual(len(rig.all(m.Attach)), 1, "a duplicate is attached")
        rig.receive(event(job, 0, "text"))
        self.assertEqual(seen.text, "text")

    def test_travel_in_messages_that_the_scheduler_accepts(self):
        rig = Rig()
        rig.pass_time(0.2)
        rig.submit([good_job(prompt="x" * 60_000) for _ in range(40)] + [good_job() for _ in range(600)])
        sizes = [len(submit.jobs) for submit in rig.all(m.Submit)]
        self.assertEqual(sum(sizes), 640)
        self.assertLessEqual(max(sizes), 256)
        self.assertGreaterEqual(len(sizes), 5)

    def test_busy_is_asked_again_for_those_alone_and_after_the_time_that_was_told(self):
        rig = Rig()
        rig.pass_time(0.2)
        job, other = new_id(), new_id()
        busy = m.SubmitOutcome(error=m.ErrorCode.BUSY, retry_after_ms=1000)
        rig.accept(m.SubmitOutcome(job), busy)
        rig.submit([good_job(), good_job()])
        rig.pass_time(0.9)
        self.assertEqual(len(rig.all(m.Submit)), 1)
        rig.accept(m.SubmitOutcome(new_id(), duplicate=True), m.SubmitOutcome(other))
        rig.pass_time(1)
        self.assertEqual([outcome.job for outcome in rig.outcomes], [job, other])
        self.assertFalse(rig.outcomes[0].duplicate, "the first outcome counts")

    def test_a_time_to_wait_beyond_the_deadline_is_the_answer_at_once(self):
        rig = Rig()
        rig.pass_time(0.2)
        rig.accept(m.SubmitOutcome(error=m.ErrorCode.STORAGE_FULL, retry_after_ms=60_000))
        rig.submit([good_job()])
        self.assertEqual(rig.outcomes[0].error, m.ErrorCode.STORAGE_FULL)


class Streams(unittest.TestCase):
    def setUp(self):
        self.rig, self.seen, self.job = Rig(), Seen(self), new_id()
        self.rig.accept_one(self.job, self.seen)

    def test_deliver_pieces_once_and_in_order(self):
        for offset, text in ((0, "On"), (0, "On"), (2, "ce"), (0, "Once u"), (6, "pon")):
            self.rig.receive(event(self.job, offset, text))
        self.assertEqual(self.seen.text, "Once upon")
        self.rig.receive(finished(self.job, "Once upon a time"))
        self.assertEqual(self.seen.text, "Once upon a time")
        self.assertEqual(len(self.seen.ends), 1)
        self.rig.receive(finished(self.job, "Once upon a time"))
        self.assertEqual(len(self.seen.ends), 1)

    def test_tell_progress_when_it_changes_and_not_of_pieces_that_come_again(self):
        for tokens, offset, text in ((1, 0, "On"), (2, 2, "ce"), (1, 0, "On"), (2, 2, "ce"), (2, 4, "")):
            self.rig.receive(event(self.job, offset, text, tokens=tokens, state=m.JobState.RUNNING))
        self.assertEqual([told.tokens for told in self.seen.progress], [1, 2])

    def test_count_bytes_and_not_characters(self):
        self.rig.receive(event(self.job, 0, "é€"))
        self.rig.receive(event(self.job, 2, "€😀"))
        self.assertEqual(self.seen.text, "é€😀")
        self.rig.receive(event(self.job, 9, "!"))
        self.assertEqual(self.seen.text, "é€😀!")

    def test_a_gap_is_asked_for_once_from_the_byte_that_was_reached(self):
        self.rig.receive(event(self.job, 0, "Once"))
        for offset in (9, 10, 11):
            self.rig.receive(event(self.job, offset, "x"))
        attach, = self.rig.all(m.Attach)
        self.assertEqual((attach.job, attach.text_offset, attach.text_digest), (self.job, 4, text_digest(b"Once")))
        self.assertEqual(self.seen.text, "Once")

    def test_silence_attaches_again_and_an_unknown_job_is_lost_once(self):
        self.rig.pass_time(13)
        attach, = self.rig.all(m.Attach)
        self.rig.receive(m.Refused(attach.request, m.ErrorCode.NOT_FOUND, "gone"))
        self.rig.receive(m.Refused(attach.request, m.ErrorCode.NOT_FOUND, "gone"))
        self.assertEqual([type(why) for why in self.seen.losses], [e.NotFound])

    def test_a_follower_that_comes_too_often_comes_after_the_time_that_was_told(self):
        self.rig.pass_time(13)
        attach, = self.rig.all(m.Attach)
        self.rig.sent.clear()
        self.rig.receive(m.Refused(attach.request, m.ErrorCode.BUSY, "60 messages a minute", 4_000))
        self.rig.pass_time(3.9)
        self.assertEqual(self.rig.all(m.Attach), [])
        self.rig.pass_time(1.2)
        self.assertEqual(len(self.rig.all(m.Attach)), 1)
        self.assertEqual(self.seen.losses, [])

    def test_a_new_term_asks_for_everything_again(self):
        self.rig.receive(event(self.job, 0, "Once"))
        self.rig.term = 2
        self.rig.pass_time(2)
        attach, = self.rig.all(m.Attach)
        self.assertEqual(attach.text_offset, 4)

    def test_text_that_was_computed_anew_begins_again(self):
        self.rig.receive(event(self.job, 0, "Once upon"))
        self.rig.receive(event(self.job, 0, "Twice", restarted=True))
        self.assertEqual((self.seen.text, self.seen.restarts), ("Twice", 1))
        self.rig.receive(finished(self.job, "Thrice it was"))
        self.assertEqual((self.seen.text, self.seen.restarts), ("Thrice it was", 2))

    def test_a_result_of_a_cancelled_job_with_less_text_takes_nothing_back(self):
        self.rig.receive(event(self.job, 0, "Once upon"))
        self.rig.receive(finished(self.job, "Once", m.JobState.CANCELLED))
        self.assertEqual((self.seen.text, self.seen.restarts), ("Once upon", 0))

    def test_credit_is_renewed_when_half_of_the_window_is_used(self):
        rig, seen, job = Rig(window_bytes=1000), Seen(self), new_id()
        rig.accept_one(job, seen)
        consumed = 0
        for i in range(100):
            piece = event(job, 10 * i, "0123456789")
            consumed += event_cost(piece.events[0])
            rig.receive(piece)
        credits = rig.all(m.Credit)
        self.assertGreaterEqual(len(credits), consumed // 600)
        self.assertLessEqual(len(credits), consumed // 500)
        self.assertEqual({credit.window for credit in credits}, {1000})

    def test_any_faults_give_the_same_text(self):
        seed = random.randrange(2**32)
        dice = random.Random(seed)
        with self.subTest(seed=seed):
            text = "".join(dice.choice("aé€😀 ") for _ in range(300)).encode()
            for _ in range(3000):
                begin = dice.randrange(len(text))
                while begin and text[begin] & 0xC0 == 0x80:
                    begin -= 1
                end = min(len(text), begin + dice.randrange(12))
                while end < len(text) and text[end] & 0xC0 == 0x80:
                    end += 1
                self.rig.receive(event(self.job, begin, text[begin:end].decode()))
            self.rig.receive(finished(self.job, text.decode()))
            self.assertEqual(self.seen.text, text.decode())
            self.assertEqual(self.seen.restarts, 0)


class Connection(unittest.TestCase):
    def test_silence_makes_a_new_one(self):
        rig = Rig()
        rig.pass_time(1)
        rig.term = 0
        rig.pass_time(4)
        self.assertEqual((rig.reconnects, rig.session.is_reachable), (0, True))
        rig.pass_time(2)
        self.assertEqual((rig.reconnects, rig.session.is_reachable), (1, False))

    def test_pings_and_credits_come_each_second(self):
        rig = Rig()
        rig.pass_time(0.5)
        self.assertIsInstance(rig.sent[0], m.Ping)
        self.assertIsInstance(rig.sent[1], m.Credit)
        rig.sent.clear()
        rig.pass_time(5)
        self.assertEqual(len(rig.all(m.Ping)), 5)
        self.assertEqual(len(rig.all(m.Credit)), 5)

    def test_events_before_the_reply_are_fetched_again(self):
        rig, seen, job = Rig(), Seen(self), new_id()
        rig.pass_time(0.2)
        rig.submit([good_job()], seen.listener())
        rig.receive(event(job, 0, "early"))
        rig.receive(m.SubmitReply(rig.all(m.Submit)[0].request, [m.SubmitOutcome(job)]))
        rig.pass_time(0.2)
        attach, = rig.all(m.Attach)
        self.assertEqual(attach.text_offset, 0)

    def test_closing_ends_calls_and_streams(self):
        rig, seen = Rig(), Seen(self)
        rig.accept_one(new_id(), seen)
        answers = []
        rig.session.call(m.GetStatus(), rig.now + 9, rig.now, lambda answer, _: answers.append(answer))
        rig.session.close(e.Cancelled("closed"), rig.now)
        self.assertEqual([type(each) for each in answers + seen.losses], [e.Cancelled] * 2)


class Budget(unittest.TestCase):
    def test_a_tenth_may_be_repeated_besides_a_burst(self):
        budget = RetryBudget()
        self.assertEqual(sum(budget.take(1.0) for _ in range(50)), 10)
        for _ in range(1000):
            budget.add_request(1.0)
        self.assertEqual(sum(budget.take(1.0) for _ in range(50)), 10)
        self.assertEqual(sum(budget.take(1.0 + second) for second in range(100)), 19)


if __name__ == "__main__":
    unittest.main()
