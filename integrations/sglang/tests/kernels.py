"""What four kernels of SGLang's CPU build do, written from how SGLang describes and calls them."""

from __future__ import annotations

import torch
from torch import Tensor


def assign_extend_cache_locs_cpu(
    rows: Tensor, table: Tensor, starts: Tensor, ends: Tensor, out: Tensor, _width: int
) -> None:
    """Pack table[row, start:end] of each request into `out`."""
    place = 0
    for row, start, end in zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True):
        out[place : place + end - start] = table[row, start:end]
        place += end - start


def fill_accept_out_cache_loc_cpu(accept_index: Tensor, slots: Tensor, out: Tensor) -> None:
    """Pack the slots of the accepted rows; -1 is none."""
    kept = accept_index.flatten()
    kept = kept[kept >= 0].long()
    out[: len(kept)] = slots[kept]


def reconstruct_indices_from_tree_mask(
    mask: Tensor, lengths: Tensor, positions: Tensor, index: Tensor, child: Tensor, sibling: Tensor,
    requests: int, size: int,
) -> None:  # fmt: skip
    """Position, row, first child and next sibling of each node; -1 is none.

    SGLang says of mask (requests x size x size,): [b, i, j] marks node j as an ancestor of node i.
    """
    ancestors = mask.view(requests, size, size).tril(-1)
    positions.copy_((ancestors.sum(-1) + lengths[:, None]).flatten())
    index.copy_(torch.arange(requests * size).view(requests, size))
    for b in range(requests):
        parents = [max((j for j in range(size) if ancestors[b, i, j]), default=-1) for i in range(size)]
        for i in range(size):
            child[b, i] = min((k for k in range(i + 1, size) if parents[k] == i), default=-1)
            after = (k for k in range(i + 1, size) if parents[k] == parents[i] >= 0)
            sibling[b, i] = min(after, default=-1)


def verify_tree_greedy_cpu(
    *, predicts: Tensor, accept_index: Tensor, accept_token_num: Tensor, candidates: Tensor,
    retrive_index: Tensor, retrive_next_token: Tensor, retrive_next_sibling: Tensor, target_predict: Tensor,
) -> None:  # fmt: skip
    """Walk from the root to the child that holds what the target says, as long as there is one."""
    for b in range(len(candidates)):
        node, count = 0, 0
        accept_index[b, 0] = retrive_index[b, 0]
        while True:
            said = target_predict[b, node]
            predicts[retrive_index[b, node]] = said
            child = int(retrive_next_token[b, node])
            while child >= 0 and candidates[b, child] != said:
                child = int(retrive_next_sibling[b, child])
            if child < 0:
                break
            node, count = child, count + 1
            accept_index[b, count] = retrive_index[b, node]
        accept_token_num[b] = count
