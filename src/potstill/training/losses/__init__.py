"""Objectives: one pure function each, on tensors alone."""

from __future__ import annotations
