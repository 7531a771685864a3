"""Gated attention over patches (paper, equations 4 and 5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gmic.config import CLASSES


class GatedAttention(nn.Module):
    """Weighs K patches against each other, sums their features, and classifies the sum."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.value = nn.Linear(features, hidden, bias=False)
        self.gate = nn.Linear(features, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)
        self.classifier = nn.Linear(features, len(CLASSES), bias=False)

    def forward(self, features_KS: Tensor) -> tuple[Tensor, Tensor]:
        """Features (K, S) to y_local (2,) in (0, 1) and attention (K,), which sums to 1."""
        gated = torch.tanh(self.value(features_KS)) * torch.sigmoid(self.gate(features_KS))
        attention_K = torch.softmax(self.score(gated).squeeze(1), dim=0)
        pooled_S = attention_K @ features_KS
        return torch.sigmoid(self.classifier(pooled_S)), attention_K
