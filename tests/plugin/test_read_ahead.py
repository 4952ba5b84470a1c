"""Which batches the search begins with, and what it takes to be asked of them."""

import torch
from fairseq.data.iterators import CountingIterator

from fairbeam_plugin.generator import GenerateRequest, PendingBatch
from fairbeam_plugin.tasks.read_ahead import ReadAhead


class Recorder:
    """A generator of two workers that writes down what it begins with."""

    ahead, workers = 3, 2

    def __init__(self) -> None:
        self.begun: list[tuple[int, GenerateRequest, bool]] = []

    def begin(self, sample, request, *, shared):
        number = int(sample["id"][0])
        self.begun.append((number, request, shared))
        return lambda: number


def batches(count: int) -> list[dict]:
    return [
        {
            "id": torch.tensor([number]),
            "net_input": {"src_tokens": torch.tensor([[number, 2]])},
            "target": torch.tensor([[number, 8, 9, 2]]),
            "constraints": f"phrases of {number}",
        }
        for number in range(count)
    ]


def test_nothing_is_begun_with_for_who_only_reads():
    samples = batches(5)
    reading = ReadAhead(CountingIterator(samples))
    assert len(reading) == 5
    for number, sample in enumerate(reading):
        assert sample is samples[number]
        assert PendingBatch.of(sample).wait is None
    assert reading.n == 5
    assert PendingBatch.of(batches(1)[0]) is None


def test_the_next_batches_are_begun_with_as_the_latest_was_asked():
    samples = [*batches(7), {}]  # the last is what fairseq fills shards with
    reading, search = ReadAhead(CountingIterator(samples)), Recorder()
    for number, sample in enumerate(reading):
        assert sample is samples[number]
        if sample:
            asked = GenerateRequest(sample["target"][:, :2], sample["constraints"] if number > 2 else None)
            # a caller may hand over another dictionary with the same tensors
            pending = PendingBatch.of({"net_input": {"src_tokens": sample["net_input"]["src_tokens"]}})
            pending.follow(search, asked)
            assert len(search.begun) == min(max(0, number and 3 + number - 1), 6)
            if number:
                assert pending.wait() == number
    assert [number for number, *_ in search.begun] == [1, 2, 3, 4, 5, 6]
    assert [shared for *_, shared in search.begun] == [False] * 5 + [True]
    for number, asked, _ in search.begun:
        constraints = f"phrases of {number}" if number > 5 else None  # known since the fourth batch was asked for
        assert asked.same(GenerateRequest(torch.tensor([[number, 8]]), constraints))


def test_what_was_begun_is_taken_once_and_by_whom_it_was_begun_for():
    (sample,), search, asked = batches(1), Recorder(), GenerateRequest(torch.tensor([[0, 8]]))
    for generator, request, taken in (
        (search, asked, True), (search, GenerateRequest(), False), (Recorder(), asked, False),
    ):  # fmt: skip
        pending = PendingBatch(follow=lambda *_: None)
        pending.attach(sample)
        pending.begin(sample, search, asked, shared=True)
        assert PendingBatch.of(sample) is pending
        assert (pending.take(generator, request) is not None) is taken
        assert pending.take(search, asked) is None


def test_what_is_asked_is_the_same_or_not():
    one = GenerateRequest(torch.tensor([[1, 2]]), [((3,),)], 4)
    assert one.same(GenerateRequest(torch.tensor([[1, 2]]), [((3,),)], 4))
    assert not one.same(GenerateRequest(torch.tensor([[1, 3]]), [((3,),)], 4))
    assert not one.same(GenerateRequest(torch.tensor([[1, 2]]), None, 4))
    assert not one.same(GenerateRequest(None, [((3,),)], 4))
    assert not one.same(GenerateRequest(torch.tensor([[1, 2]]), torch.tensor([3]), 4))
    assert GenerateRequest().same(GenerateRequest())
