"""Keyword arguments, the checks of jobs, and what callers get."""

import unittest

import optserve
from optserve import _messages as m
from optserve._options import conversion_job, job_of, make_job
from optserve._outputs import Answers, Feed, Piece, accepted
from optserve._validate import check_job


class Options(unittest.TestCase):
    def test_have_the_names_of_the_protocol(self):
        job = make_job("p", {"model": "m", "top_p": 0.5, "stop": "x", "logit_bias": {5: -1.5}, "profile": "metaseq",
                             "on_disconnect": "cancel", "bad_word_ids": [(1, 2)]})
        self.assertEqual((job.prompt, job.top_p, job.stop), ("p", 0.5, ["x"]))
        self.assertEqual(job.logit_bias, [m.TokenBias(5, -1.5)])
        self.assertEqual((job.profile, job.on_disconnect), (m.SamplingProfile.METASEQ, m.OnDisconnect.CANCEL))
        self.assertEqual(job.bad_word_ids, [[1, 2]])
        self.assertEqual(make_job((2, 3), {}).prompt_ids, [2, 3])

    def test_a_trace_is_in_its_one_form(self):
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        check_job(make_job("p", {"model": "m", "key": "k", "traceparent": trace}))
        for wrong in (trace + "\n", trace.upper(), "cc" + trace[2:], trace[:35] + "-" + "0" * 16 + "-01", "x"):
            with self.assertRaisesRegex(optserve.BadRequest, "traceparent"):
                check_job(make_job("p", {"model": "m", "key": "k", "traceparent": wrong}))

    def test_an_unknown_one_names_the_nearest(self):
        for wrong, near in (("top_pp", "top_p"), ("max_tokens", "max_new_tokens"), ("temprature", "temperature"),
                            ("kind", "")):
            said = f"no option '{wrong}'" + (f"; did you mean '{near}'" if near else "")
            with self.assertRaisesRegex(TypeError, said):
                make_job("p", {wrong: 1})
        with self.assertRaisesRegex(TypeError, "did you mean 'quantize'"):
            conversion_job("a", "b", {"quantise": "int8"})
        with self.assertRaisesRegex(TypeError, "expected one of continue, cancel"):
            make_job("p", {"on_disconnect": "never"})

    def test_of_a_job_come_before_those_of_a_call_and_of_the_client(self):
        self.assertEqual(job_of({"prompt": "p", "seed": 1}, {"seed": 2, "model": "m"}), m.JobSpec(
            prompt="p", seed=1, model="m"))
        given = m.JobSpec(prompt="p", seed=1)
        self.assertEqual(job_of(given, {"seed": 2, "top_k": 3}), m.JobSpec(prompt="p", seed=1, top_k=3))
        self.assertEqual(given.top_k, 0)

    def test_of_a_conversion_are_told_apart(self):
        job = conversion_job("in", "out", {"quantize": "int8", "priority": 3})
        self.assertEqual(job.convert, m.ConvertSpec("in", "out", "keep", quantize="int8"))
        self.assertEqual((job.kind, job.priority), (m.JobKind.CONVERT, 3))


class Checks(unittest.TestCase):
    def test_hold_the_bounds_of_the_protocol(self):
        good = {"key": "k", "model": "m", "prompt": "p"}
        check_job(m.JobSpec(**good))
        check_job(m.JobSpec(**{**good, "max_new_tokens": 0, "prompt_logprobs": True, "prompt_best": 20}))
        for wrong in ({"key": ""}, {"key": "a b"}, {"model": ""}, {"prompt": ""}, {"prompt_ids": [1]}, {"priority": 10},
                      {"top_p": 0.0}, {"top_p": 1.1}, {"temperature": float("nan")}, {"max_new_tokens": 0},
                      {"max_new_tokens": 2049}, {"stop": ["a"] * 17}, {"stop": ["a" * 65]}, {"ttl_ms": 0},
                      {"tenant": "t" * 65}, {"convert": m.ConvertSpec()}, {"top_k": "3"}, {"stop_ids": 3},
                      {"prompt_best": 1}, {"prompt_best": 21, "prompt_logprobs": True}):
            with self.assertRaises(optserve.BadRequest, msg=wrong):
                check_job(m.JobSpec(**{**good, **wrong}))
        with self.assertRaises(optserve.PromptTooLong):
            check_job(m.JobSpec(**{**good, "prompt": "x" * 65537}))


class Outputs(unittest.TestCase):
    def test_the_piece_after_a_restart_says_so(self):
        pieces, ends = [], []
        feed = Feed(pieces.append, ends.append)
        listener = feed.listener()
        listener.on_text("a", m.JobEvent(text_offset=0, tokens=1))
        listener.on_restarted()
        listener.on_text("b", m.JobEvent(text_offset=0, tokens=2))
        listener.on_restarted()
        listener.on_finished(m.JobResult(state=m.JobState.SUCCEEDED))
        self.assertEqual([(str(p), p.restarted) for p in pieces], [("a", False), ("b", True), ("", True)])
        self.assertEqual((len(ends), feed.restarts), (1, 2))
        self.assertEqual("x" + Piece("y"), "xy")

    def test_failures_are_raised_by_their_code(self):
        result = m.JobResult(state=m.JobState.FAILED, error=m.ErrorCode.PROMPT_TOO_LONG, message="too long")
        with self.assertRaises(optserve.PromptTooLong) as caught:
            result.raise_if_failed()
        self.assertIs(caught.exception.result, result)
        with self.assertRaises(optserve.Cancelled):
            m.JobResult(state=m.JobState.CANCELLED).raise_if_failed()
        m.JobResult(state=m.JobState.RUNNING).raise_if_failed()

    def test_a_refused_job_says_when_to_try_again(self):
        why = accepted(m.SubmitOutcome(error=m.ErrorCode.BUSY, message="full", retry_after_ms=1500), "k")
        self.assertIsInstance(why, optserve.Busy)
        self.assertEqual((why.retry_after, why.may_succeed_later, why.name), (1.5, True, "busy"))
        job = accepted(m.SubmitOutcome("0" * 32, position=3, eta_ms=2500), "k")
        self.assertEqual((job.position, job.eta), (3, 2.5))

    def test_answers_keep_the_errors_of_those_that_did_not_answer(self):
        answers = Answers.of({"a": m.SystemStatus(term=1), "b": optserve.Unavailable("silent")}, m.SystemStatus)
        self.assertEqual((list(answers), list(answers.errors)), (["a"], ["b"]))
        with self.assertRaises(optserve.Unavailable):
            answers.all()
        with self.assertRaises(optserve.Unavailable):
            Answers.of({"b": optserve.Unavailable("silent")}, m.SystemStatus)


if __name__ == "__main__":
    unittest.main()
