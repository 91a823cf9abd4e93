"""A sorted index against a dictionary."""

from __future__ import annotations

import torch

from tosa.frames.index import KeyIndex


def test_an_index_finds_what_a_dictionary_does() -> None:
    draw = torch.Generator().manual_seed(0)
    index, known, rows = KeyIndex(), dict[int, int](), 0
    for step in range(40):
        keys = torch.randint(-300, 300, (50,), generator=draw)
        expected = [known.get(key, -1) for key in keys.tolist()]
        assert index.find(keys).tolist() == expected
        fresh = [at for at, key in enumerate(keys.tolist()) if key not in known]
        first = [at for at in fresh if keys.tolist().index(keys[at].item()) == at]
        assert index.add(keys).tolist() == first
        for at in first:
            known[int(keys[at])] = rows
            rows += 1
        if step % 3 == 2:
            kept = torch.rand(rows, generator=draw) > 0.3
            index.keep(kept)
            number = (torch.cumsum(kept, 0) - 1).tolist()
            known = {key: number[row] for key, row in known.items() if kept[row]}
            rows = int(kept.sum())
        assert len(index) == len(known) == rows and index.nbytes == 16 * rows


def test_an_empty_index() -> None:
    index = KeyIndex()
    assert index.find(torch.tensor([1, 2])).tolist() == [-1, -1]
    assert index.add(torch.tensor([5, 5, 3])).tolist() == [0, 2]
    index.keep(torch.zeros(2, dtype=torch.bool))
    assert len(index) == 0 and index.add(torch.zeros(0, dtype=torch.int64)).tolist() == []
