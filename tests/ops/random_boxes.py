"""Boxes for tests, drawn from an explicit generator."""

import torch

SIZES = (0, 1, 2, 257, 1000)


def integer_boxes(count, seed, extent=40):
    """Half-open boxes with small whole corners: exact areas, many duplicates and equal overlaps."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, extent, (count, 2), generator=generator)
    sides = torch.randint(1, extent // 2, (count, 2), generator=generator)
    return torch.cat((corners, corners + sides), dim=1).float()


def real_boxes(count, seed):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 80
    return torch.cat((corners, corners + 1 + torch.rand(count, 2, generator=generator) * 40), dim=1)


def scores_with_ties(count, seed, levels=20):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, levels, (count,), generator=generator) / levels
