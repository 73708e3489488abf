"""Datasets at work: randomness by sample, whole micro-batches, streams that are read forward, samples that raise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from orchestrator.errors import RecipeError
from orchestrator.plan.mixture import SampleOrder
from orchestrator.plan.shares import MixturePlan, Share
from orchestrator.recipe.data import Dataset, Loader
from orchestrator.worker.data.datasets import Datasets, Draw, open_datasets
from orchestrator.worker.data.loader import MicroBatches, data_loader
from orchestrator.worker.data.parts import SampleError
from orchestrator.worker.randomness import sample_generator
from orchestrator.worker.targets import UserCode
from orchestrator.worker.windows import Windows
from tests.worker.recipes import CODE


def opened(*declared: dict[str, Any], skips_bad: bool = False) -> Datasets:
    """Datasets of the tests' user code: `kind` is a class of it, `size` its declared size."""
    sections = [
        Dataset(
            name=each.get("name", "points"),
            target=f"data:{each.pop('kind')}",
            num_samples=each["size"],
            iterable=each.pop("iterable", False),
            args={key: value for key, value in each.items() if key != "name"},
        )
        for each in declared
    ]
    return open_datasets(UserCode(CODE), sections, seed=5, where="datasets", skips_bad=skips_bad)


def items(datasets: Datasets, *which: tuple[int, int]) -> list[torch.Tensor]:
    """The inputs of samples, each (id, pass), fetched as one micro-batch."""
    ids, passes = zip(*which, strict=True)
    return [item[0] for item in datasets.__getitems__(Draw(ids, passes, len(ids)))[1]]


def test_every_kind_of_generator_gives_a_sample_the_same_numbers_in_any_company() -> None:
    """Python's and numpy's own generators too: the recipe's modules import them."""
    datasets = opened({"kind": "Augmented", "size": 9})
    alone = [items(datasets, (index, 0))[0] for index in range(9)]
    together = items(datasets, *((index, 0) for index in reversed(range(9))))
    assert all(torch.equal(one, other) for one, other in zip(alone, reversed(together), strict=True))
    assert not torch.equal(items(datasets, (3, 1))[0], alone[3])
    assert len({tuple((alone[i] - datasets.parts[0].dataset.features[i]).tolist()) for i in range(9)}) == 9


def test_outside_of_fetching_there_is_no_sample_to_seed_a_generator_for() -> None:
    with pytest.raises(RuntimeError, match="is being fetched here"):
        sample_generator()


def test_whole_micro_batches_are_fetched_at_once_and_hang_on_no_micro_batch() -> None:
    datasets = opened({"kind": "Batches", "size": 9})
    together = items(datasets, (4, 0), (2, 0), (4, 1))
    assert datasets.parts[0].dataset.calls == [[4, 2], [4]]
    alone = [items(datasets, which)[0] for which in ((4, 0), (2, 0), (4, 1))]
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    assert not torch.equal(together[0], together[2])


def test_a_micro_batch_that_draws_from_a_global_generator_is_refused() -> None:
    with pytest.raises(SampleError, match=r"drew from a global generator.*; use sample_generator\(index=\.\.\.\)"):
        items(opened({"kind": "Batches", "size": 9, "draws": "global"}), (4, 0), (2, 0))


def test_of_a_micro_batch_that_raises_the_one_sample_is_named() -> None:
    with pytest.raises(SampleError, match=r"^sample 4 of dataset 'points': ValueError: this one is torn$"):
        items(opened({"kind": "Batches", "size": 9, "bad": 4}), (2, 0), (4, 0), (5, 0))


def fetched(datasets: Datasets, *, workers: int, world_size: int, start: int = 0) -> dict[int, list[torch.Tensor]]:
    """The inputs by sample id, over all ranks, of a mixture of a stream of 12 and 30 points in windows of 7."""
    shares = (Share("stream", 12, 1, iterable=True), Share("points", 30, 2))
    order = SampleOrder(5, MixturePlan("weights", "repeat", shares), 42)
    found: dict[int, dict[int, torch.Tensor]] = {}
    for rank in range(world_size):
        windows = Windows(order, 100, 7, 2, 1, world_size, rank)
        draws = list(windows.draws_from(start))
        batches = MicroBatches(data_loader(datasets, iter(draws), Loader(workers=workers), device=torch.device("cpu")))
        for draw, batch in zip(draws, batches, strict=True):
            for key, inputs in zip(zip(draw.ids, draw.passes, strict=True), batch.inputs, strict=False):
                if draw.num_samples:
                    found.setdefault(key[0], {})[key[1]] = inputs
        batches.close()
    return {key: [by_pass[number] for number in sorted(by_pass)] for key, by_pass in sorted(found.items())}


def test_a_stream_gives_the_same_samples_for_any_number_of_ranks_and_loader_processes() -> None:
    """100 samples hold nearly three passes over the stream, each shifted by its number, each item with noise."""

    def datasets() -> Datasets:
        stream = {"kind": "Stream", "name": "stream", "size": 12, "iterable": True, "noise": 0.1}
        return opened(stream, {"kind": "Points", "size": 30, "noise": 0.1})

    reference = fetched(datasets(), workers=0, world_size=1)
    assert len(reference[0]) == 3 and len(reference[20]) == 2
    assert 1.0 < (reference[0][2] - reference[0][0]).mean() < 3.0
    for workers, world_size in ((2, 1), (0, 3)):
        other = fetched(datasets(), workers=workers, world_size=world_size)
        assert {key: len(values) for key, values in other.items()} == {k: len(v) for k, v in reference.items()}
        assert all(torch.equal(*pair) for key in other for pair in zip(other[key], reference[key], strict=True))
    resumed = fetched(datasets(), workers=0, world_size=1, start=70)
    assert all(torch.equal(values[-1], reference[key][-1]) for key, values in resumed.items())


def test_a_stream_reads_no_item_twice_for_ranks_and_micro_steps_that_have_none() -> None:
    """Three samples among four ranks with two micro-steps each: what stands in was just read, or lies ahead."""
    order = SampleOrder(5, MixturePlan("concatenate", "repeat", (Share("news", 12, 12, iterable=True),)), 12)
    for rank in range(4):
        stream = opened({"kind": "Stream", "name": "news", "size": 12, "iterable": True, "ends_after": 12})
        indices = [i for draw in Windows(order, 12, 3, 1, 1, 4, rank).draws_from(0) for i in draw.ids]
        assert indices == sorted(indices)
        assert all(len(stream.__getitems__(Draw((i,), (0,), 1))[1]) == 1 for i in indices)


def test_a_stream_that_ends_early_is_named_with_its_count() -> None:
    stream = opened({"kind": "Stream", "name": "news", "size": 12, "iterable": True, "ends_after": 7})
    items(stream, (6, 3))
    with pytest.raises(SampleError, match=r"^dataset 'news' ended after 7 of its 12 samples, in pass 3$"):
        items(stream, (7, 3))


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"kind": "Points", "size": 0}, "datasets.0: dataset 'points' is empty\n    give it samples"),
        ({"kind": "Stream", "size": 12}, "datasets.0.iterable: data:Stream gave Stream, which has __iter__ and no"),
        ({"kind": "not_a_dataset", "size": 1, "iterable": True}, "datasets.0.iterable: data:not_a_dataset gave int"),
    ],
)
def test_a_dataset_of_another_kind_is_refused(declared: dict[str, Any], message: str) -> None:
    args = {key: value for key, value in declared.items() if key == "size" and declared["kind"] != "not_a_dataset"}
    section = Dataset(
        name="points",
        target=f"data:{declared['kind']}",
        num_samples=declared["size"] or 8,
        iterable=declared.get("iterable", False),
        args=args,
    )
    with pytest.raises(RecipeError) as caught:
        open_datasets(UserCode(CODE), [section], seed=5, where="datasets")
    assert str(caught.value).startswith(message)


def test_bad_samples_leave_the_rest_of_their_micro_batch_and_a_stand_in_where_nothing_is_left() -> None:
    datasets = opened({"kind": "Torn", "size": 9, "each": 3}, skips_bad=True)
    draw, found = datasets.__getitems__(Draw((1, 3, 5, 6), (0, 0, 0, 0), 4))
    assert draw.ids == (1, 5) and draw.num_samples == len(found) == 2
    assert [(bad.dataset, bad.index) for bad in draw.bad] == [("points", 3), ("points", 6)]
    draw, found = datasets.__getitems__(Draw((3, 6), (0, 0), 2))
    assert draw.num_samples == 0 and len(draw.bad) == 2 and len(found) == 1
    draw, found = datasets.__getitems__(Draw((6,), (0,), 0))
    assert (draw.num_samples, draw.bad, len(found)) == (0, (), 1)
    with pytest.raises(SampleError, match="and so do the 32 after it"):
        opened({"kind": "Torn", "size": 40, "each": 1}, skips_bad=True).__getitems__(Draw((3,), (0,), 1))
