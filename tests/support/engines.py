"""Runs an engine by hand."""

from dataclasses import dataclass, field

from drakkar_workers.serve.engine.request import Request, Sampling


@dataclass
class Answer:
    """What came back for a request."""

    tokens: list = field(default_factory=list)
    logprobs: list = field(default_factory=list)
    prompt_logprobs: list = field(default_factory=list)
    finish: str | None = None
    stopped_by: int | None = None
    cached: int = 0
    error: str = ""
    embedding: list = field(default_factory=list)


def request(
    name,
    prompt,
    *,
    adapter=None,
    salt="",
    priority=0,
    embed=False,
    arrival=0.0,
    prompt_logprobs=None,
    **sampling,
):
    """A greedy request unless ``sampling`` says otherwise."""
    fields = {"temperature": 0.0, "max_tokens": 12, "ignore_eos": True, **sampling}
    return Request(
        id=name, prompt=list(prompt), sampling=Sampling(**fields), adapter=adapter, salt=salt,
        priority=priority, embed=embed, arrival=arrival, prompt_logprobs=prompt_logprobs,
    )  # fmt: skip


def run(engine, *requests):
    """Serve requests that arrive together; their answers by id."""
    answers = {}
    for number, one in enumerate(requests):
        engine.add(one)
        answers[one.id] = Answer()
        assert number < 1000
    for _ in range(20_000):
        if engine.idle:
            break
        for output in engine.step():
            answer = answers[output.id]
            assert answer.finish is None, "more after the end"
            answer.tokens += output.tokens
            answer.logprobs += output.logprobs
            answer.prompt_logprobs += output.prompt_logprobs
            answer.finish, answer.stopped_by = output.finish, output.stopped_by
            answer.cached += output.cached
            answer.error += output.error
            answer.embedding = output.embedding
    assert engine.idle
    engine.scheduler.check()
    return answers
