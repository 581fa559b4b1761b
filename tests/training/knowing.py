"""A teacher that has something to say, beside a student of the same tokens."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from potstill.signals.keys import TextKeys
from potstill.signals.teacher import LiveTeacher
from potstill.templates import ChatTemplate
from potstill.training.teaching import TeacherView, Teaching

REAL_TOKENS = 49_152


def knowing_network(student: Path) -> LlamaForCausalLM:
    """Surer of itself than random weights are: it has something to say that its answers alone do not tell."""
    torch.manual_seed(1)
    network = LlamaForCausalLM(LlamaConfig.from_pretrained(student)).eval()
    with torch.no_grad():
        network.model.norm.weight.mul_(30.0)
    return network


def teaching_of(network: LlamaForCausalLM, student: Path) -> Teaching:
    """It runs beside the student, and reads what the student reads."""
    template = ChatTemplate.from_folder(student)
    view = TeacherView(template, AutoTokenizer.from_pretrained(student), TextKeys({"weights": "a"}, template.source))
    live = LiveTeacher(network, bfloat16=False)
    return Teaching(live, view, knows=lambda key: True, vocabulary=REAL_TOKENS, layers=live)
