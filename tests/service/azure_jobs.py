"""Descriptions of Azure's for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

KEY = "sk-azure-6bd1f0a97c44e2"
KEY_VARIABLE = "LLAMA_405B_API_KEY"


def description(**changes: Any) -> dict[str, Any]:
    """A description that the SDK loads, with the key in clear text; None takes a field away."""
    job: dict[str, Any] = {
        "type": "distillation",
        "name": "support-distill",
        "experiment_name": "support",
        "data_generation_type": "label_generation",
        "data_generation_task_type": "CONVERSATION",
        "teacher_model_endpoint_connection": {
            "type": "serverless", "name": "llama-405b", "endpoint": "https://example.invalid/v1", "api_key": KEY,
        },
        "student_model": "azureml://registries/azureml-meta/models/Meta-Llama-3.1-8B-Instruct/versions/2",
        "training_data": "./train.jsonl",
        "validation_data": {"type": "uri_file", "path": "./validation.jsonl"},
        "teacher_model_settings": {
            "inference_parameters": {"temperature": 0.6, "max_tokens": 256, "top_p": 0.9},
            "endpoint_request_settings": {"request_batch_size": 10, "min_endpoint_success_ratio": 0.7},
        },
        "prompt_settings": {"enable_chain_of_thought": False},
        "hyperparameters": {"learning_rate": "0.00003", "batch_size": "4", "num_train_epochs": "2"},
        "resources": {"instance_type": "Standard_D2_v2"},
        "outputs": {"registered_model": {"type": "mlflow_model", "name": "llama-distilled"}},
    }
    return {name: value for name, value in {**job, **changes}.items() if value is not None}


def write_description(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(description(**changes), sort_keys=False))
    return path
