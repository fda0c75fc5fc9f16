"""Closing a client ends whoever waits for it, wherever the scheduler is."""

import asyncio
import threading
import time
import unittest

import optserve

NOBODY = "tcp://127.0.0.1:9"


class Closing(unittest.TestCase):
    def test_ends_calls_of_other_threads_and_streams(self):
        client = optserve.Client(NOBODY, model="m", timeout=60)
        ends = []

        def call(function):
            try:
                function()
            except optserve.Error as error:
                ends.append(type(error))

        stream = client.stream("p")
        future = client.future("p")
        threads = [threading.Thread(target=call, args=[each]) for each in
                   (client.status, lambda: client.submit("p"), lambda: client.wait("0" * 32, 60), lambda: list(stream),
                    stream.job, future.result)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)  # not needed for the result; lets most of them wait
        client.close()
        for thread in threads:
            thread.join(5)
        self.assertEqual(ends, [optserve.Cancelled] * len(threads))
        client.close()
        with self.assertRaises(RuntimeError):
            client.stream("p")

    def test_a_scheduler_that_is_not_there_is_told_within_the_timeout(self):
        begin = time.monotonic()
        with optserve.Client(NOBODY, model="m", timeout=0.2) as client:
            for call in (client.status, lambda: client.submit("p"), lambda: client.generate("p"),
                         lambda: next(client.stream("p")), lambda: next(client.map(["p"]))):
                with self.assertRaises(optserve.Unavailable):
                    call()
        self.assertLess(time.monotonic() - begin, 4)

    def test_values_of_any_type_are_refused_and_nobody_waits(self):
        with optserve.Client(NOBODY + ",tcp://127.0.0.1:10", timeout=20) as client:
            for wrong in ({"key": 5}, {"key": "\ud800"}, {"tenant": b"t"}, {"stop": ["\ud800"]}, {"stop": 3},
                          {"prompt": None}, {"seed": "1"}, {"logit_bias": [3]}, {"convert": 1}):
                job = optserve.JobSpec(model="m", prompt="p")
                job.__dict__.update(wrong)
                with self.assertRaises(optserve.BadRequest, msg=wrong):
                    next(client.map([job]))
            client._client._engine.submit = None  # a fault of the client itself
            with self.assertRaises(optserve.Internal):
                client.generate("p", model="m")

    def test_of_an_async_client_ends_its_tasks(self):
        async def main():
            client = optserve.AsyncClient(NOBODY, model="m", timeout=60)
            calls = (client.status(), client.generate("p"), client.get("0" * 32))
            tasks = [asyncio.ensure_future(each) for each in calls]
            await asyncio.sleep(0.05)
            await client.close()
            return await asyncio.gather(*tasks, return_exceptions=True)

        self.assertEqual([type(each) for each in asyncio.run(main())], [optserve.Cancelled] * 3)

    def test_bad_addresses_are_errors_at_once(self):
        for endpoints in ("", "a,,b", "nonsense", "tcp://127.0.0.1"):
            with self.assertRaises((optserve.BadRequest, ValueError)):
                optserve.Client(endpoints)


if __name__ == "__main__":
    unittest.main()
