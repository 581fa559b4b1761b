"""Objectives, on tensors and a teacher's signals alone: divergences, what mixes them, and the walk that computes them."""

from __future__ import annotations
