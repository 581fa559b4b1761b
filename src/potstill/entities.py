"""What a distillation job is described with in Python, under the names of the Azure ML SDK."""

from __future__ import annotations

from potstill.service.entities import (
    ApiKeyConfiguration,
    AssetTypes,
    DataGenerationTaskType,
    DataGenerationType,
    DistillationJob,
    EndpointRequestSettings,
    Input,
    NoneCredentialConfiguration,
    Output,
    PromptSettings,
    ResourceConfiguration,
    ServerlessConnection,
    TeacherModelSettings,
    WorkspaceConnection,
    distillation,
)

__all__ = [
    "ApiKeyConfiguration",
    "AssetTypes",
    "DataGenerationTaskType",
    "DataGenerationType",
    "DistillationJob",
    "EndpointRequestSettings",
    "Input",
    "NoneCredentialConfiguration",
    "Output",
    "PromptSettings",
    "ResourceConfiguration",
    "ServerlessConnection",
    "TeacherModelSettings",
    "WorkspaceConnection",
    "distillation",
]
