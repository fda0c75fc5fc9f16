"""What a job's result can be asked."""

from __future__ import annotations

import math
from typing import Any


class ResultMethods:
    """Methods of JobResult."""

    def __getattr__(self, name: str) -> Any:  # for type checkers: the fields are in the generated class
        raise AttributeError(f"a JobResult has no {name}")

    @property
    def succeeded(self) -> bool:
        return self.state == 3

    @property
    def is_final(self) -> bool:
        """Whether the job has ended; otherwise this is how far it is."""
        return self.state >= 3

    @property
    def cumulative_logprob(self) -> float:
        """The sum of the log-probabilities of the output's ids, if the job asked for them."""
        return math.fsum(self.logprobs)

    def raise_if_failed(self) -> None:
        """Raises the error of the job's code, with the result in its `result`, if the job ended without success."""
        from ._errors import error_of_result

        if self.is_final and not self.succeeded:
            raise error_of_result(self)
