"""How the programs of the field read a stream of completions: their rules, written down from what they were seen to do
(openai-python 3.57, openai-node 7.5, vLLM's `bench serve` 0.33, guidellm 0.8, aiperf 0.13, genai-perf 0.0.16).

A reader takes the bytes of a body in any pieces: feed() as they come, then end(). Afterwards `text` is what it took for
the output (of all choices together), `usage` what it took for the usage, and `error` why the request counts as failed,
or None.
"""

import json


class Reader:
    separator = b"\n\n"  # an empty line

    def __init__(self):
        self.buffer = b""
        self.text, self.usage, self.error, self.is_done = "", None, None, False

    def feed(self, piece):
        self.buffer += piece
        while not self.is_done and self.error is None and (found := self.cut()) is not None:
            self.take(found)

    def end(self):
        pass

    def cut(self):
        """The next block, which the separator ends."""
        end = self.buffer.find(self.separator)
        if end < 0:
            return None
        block, self.buffer = self.buffer[:end], self.buffer[end + len(self.separator):]
        return block

    def found_in(self, text):
        """The JSON of an event; None if it is not JSON, which is an error."""
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            self.error = "not JSON: " + repr(text)
            return None

    def add(self, data):
        self.text += "".join(choice.get("text") or choice.get("delta", {}).get("content") or ""
                             for choice in data["choices"])
        self.usage = data.get("usage") or self.usage


class OpenAI(Reader):
    """Python and Node: lines are gathered to events; every event but [DONE] has to be an object in JSON, and one
    without a field is skipped only as long as no id came."""

    def __init__(self):
        super().__init__()
        self.last_id = None

    def cut(self):
        self.buffer = self.buffer.replace(b"\r\n", b"\n")
        return super().cut()

    def take(self, block):
        data, event = [], None
        for line in block.decode().split("\n"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data.append(value)
            elif name == "event":
                event = value
            elif name == "id":
                self.last_id = value
        if not data and event is None and self.last_id is None:
            return  # a comment
        text = "\n".join(data)
        if text.startswith("[DONE]"):
            self.is_done = True
            return
        found = self.found_in(text)
        if self.error is not None:
            return
        if event == "error" or found.get("error"):
            self.error = "APIError: " + str(found.get("error"))
            return
        self.add(found)


class VllmBench(Reader):
    """Blocks as they are: one that begins with a colon is skipped as a whole, all others begin with `data: `."""

    def take(self, block):
        text = block.decode().strip()
        if not text or text.startswith(":"):
            return
        text = text.removeprefix("data: ")
        if text == "[DONE]":
            self.is_done = True
            return
        found = self.found_in(text)
        if self.error is not None:
            return
        if found.get("choices"):
            self.add({"choices": found["choices"]})
        elif found.get("usage"):
            self.usage = found["usage"]

    def end(self):
        if self.error is None and not self.text:
            self.error = "never received a chunk"


class Guidellm(Reader):
    """Line by line; what is half there at the end is an error, and so is a stream of no text."""

    separator = b"\n"

    def take(self, line):
        text = line.decode().strip()
        if not text.startswith("data:"):
            return
        text = text.removeprefix("data:").strip()
        if text == "[DONE]":
            self.is_done = True
            return
        found = json.loads(text)
        if "error" in found:
            self.error = str(found["error"])
            return
        self.add(found)

    def end(self):
        if self.error is None and (self.buffer.strip() or not self.text):
            self.error = "half a line, or no text"


class Aiperf(Reader):
    """Blocks whose fields may stand in any order. An event `error` fails; an object has to name what it is."""

    def take(self, block):
        fields = {}
        for line in block.decode().split("\n"):
            name, _, value = line.partition(":")
            if name:
                fields[name] = value.strip()
        if fields.get("event") == "error":
            self.error = fields.get("data", "")
            return
        data = fields.get("data", "")
        if data == "[DONE]":
            self.is_done = True
        elif data:
            found = json.loads(data)
            if found.get("object") in ("text_completion", "chat.completion.chunk"):
                self.add(found)


class GenaiPerf(Aiperf):
    """As aiperf, but it reads the first choice of every chunk, so a chunk without choices is its end."""

    def add(self, data):
        if not data["choices"]:
            self.error = "IndexError"
            return
        super().add(data)


READERS = [OpenAI, VllmBench, Guidellm, Aiperf, GenaiPerf]


def read(reader_class, body, pick=None):
    """The reader after the whole body; `pick`, a random.Random, cuts it into pieces."""
    reader = reader_class()
    at = 0
    while at < len(body):
        size = pick.choice([1, 2, 3, 7, 60, 1000]) if pick else len(body)
        reader.feed(body[at:at + size])
        at += size
    reader.end()
    return reader
