"""Which batches the search begins with, and what it takes to be asked of them."""

import torch
from fairseq.data.iterators import CountingIterator

from fairbeam_plugin.generator import GenerateRequest
from fairbeam_plugin.tasks.read_ahead import ReadAhead


class Recorder:
    """A search of two workers that writes down what it begins with."""

    ahead = 3

    def __init__(self) -> None:
        self.begun: list[tuple[int, GenerateRequest, bool]] = []
        self.decoder = self
        self.workers = 2

    def begin(self, sample, asked, *, apart):
        self.begun.append((int(sample["id"][0]), asked, apart))


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
    reading, search = ReadAhead(CountingIterator(samples)), Recorder()
    assert len(reading) == 5
    for number, sample in enumerate(reading):
        assert sample is samples[number]
        reading.follow(search, samples[number - 1], GenerateRequest())  # another batch than the latest
    assert reading.n == 5
    assert not search.begun


def test_the_next_batches_are_begun_with_as_the_latest_was_asked():
    samples = [*batches(7), {}]  # the last is what fairseq fills shards with
    reading, search = ReadAhead(CountingIterator(samples)), Recorder()
    for number, sample in enumerate(reading):
        assert sample is samples[number]
        if sample:
            asked = GenerateRequest(sample["target"][:, :2], sample["constraints"] if number > 2 else None)
            # a caller may hand over another dictionary with the same tensors
            reading.follow(search, {"net_input": {"src_tokens": sample["net_input"]["src_tokens"]}}, asked)
            assert len(search.begun) == min(max(0, number and 3 + number - 1), 6)
    assert [number for number, *_ in search.begun] == [1, 2, 3, 4, 5, 6]
    assert [apart for *_, apart in search.begun] == [False] * 5 + [True]
    for number, asked, _ in search.begun:
        constraints = f"phrases of {number}" if number > 5 else None  # known since the fourth batch was asked for
        assert asked.same(GenerateRequest(torch.tensor([[number, 8]]), constraints))


def test_what_is_asked_is_the_same_or_not():
    one = GenerateRequest(torch.tensor([[1, 2]]), [((3,),)], 4)
    assert one.same(GenerateRequest(torch.tensor([[1, 2]]), [((3,),)], 4))
    assert not one.same(GenerateRequest(torch.tensor([[1, 3]]), [((3,),)], 4))
    assert not one.same(GenerateRequest(torch.tensor([[1, 2]]), None, 4))
    assert not one.same(GenerateRequest(None, [((3,),)], 4))
    assert not one.same(GenerateRequest(torch.tensor([[1, 2]]), torch.tensor([3]), 4))
    assert GenerateRequest().same(GenerateRequest())
