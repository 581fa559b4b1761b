"""Run by the Python of .venv-azure, never imported: what the Azure ML SDK makes of a description, of code, and its signatures.

    ask_azure_sdk.py reload IN OUT [IN OUT ...]     load each description and dump it again
    ask_azure_sdk.py code FILE OUT                  run code that sets `job`, with the SDK's names, and dump the job
    ask_azure_sdk.py signatures                     the parameters of the classes that Potstill has too, as JSON
"""

import inspect
import json
import logging
import runpy
import sys

logging.disable(logging.WARNING)

from azure.ai.ml import Input, Output, load_job  # noqa: E402
from azure.ai.ml.constants import AssetTypes, DataGenerationTaskType, DataGenerationType  # noqa: E402
from azure.ai.ml.entities import (  # noqa: E402
    ApiKeyConfiguration,
    NoneCredentialConfiguration,
    ResourceConfiguration,
    ServerlessConnection,
    WorkspaceConnection,
)
from azure.ai.ml.entities._job.distillation.distillation_job import DistillationJob  # noqa: E402
from azure.ai.ml.model_customization import (  # noqa: E402
    EndpointRequestSettings,
    PromptSettings,
    TeacherModelSettings,
    distillation,
)

CLASSES = (
    Input, Output, ApiKeyConfiguration, NoneCredentialConfiguration, ResourceConfiguration, ServerlessConnection,
    WorkspaceConnection, DistillationJob, EndpointRequestSettings, PromptSettings, TeacherModelSettings, distillation,
)
ENUMS = (AssetTypes, DataGenerationTaskType, DataGenerationType)


def parameters(thing):
    function = thing.__init__ if inspect.isclass(thing) else thing
    found = inspect.signature(inspect.unwrap(function)).parameters.values()
    return [parameter.name for parameter in found if parameter.name != "self" and parameter.kind is not parameter.VAR_KEYWORD]


def members(thing):
    return {name: value for name, value in vars(thing).items() if name.isupper()}


def main(what, *arguments):
    if what == "reload":
        for source, target in zip(arguments[::2], arguments[1::2], strict=True):
            load_job(source).dump(target)
    elif what == "code":
        runpy.run_path(arguments[0], init_globals=globals())["job"].dump(arguments[1])
    else:
        setters = [name for name in vars(DistillationJob) if name.startswith("set_")]
        told = {thing.__name__: parameters(thing) for thing in CLASSES}
        told |= {f"DistillationJob.{name}": parameters(getattr(DistillationJob, name)) for name in setters}
        sys.stdout.write(json.dumps({"parameters": told, "members": {thing.__name__: members(thing) for thing in ENUMS}}))


main(*sys.argv[1:])
