"""The platform's own environment of this name has images baked of a step's packages; here it notes what it would."""

import json
import os
from pathlib import Path

from metaflow.metaflow_environment import MetaflowEnvironment


class Bakery(MetaflowEnvironment):
    TYPE = "fast-bakery"

    def __init__(self, flow):
        super().__init__(flow)
        self._steps = flow

    def set_local_root(self, _):
        """Of the flow's local datastore: where environments like this one keep their notes."""

    def init_environment(self, _):
        for step in self._steps:
            attributes = {decorator.name: decorator.attributes for decorator in step.decorators}
            attributes["kubernetes"]["image"] = os.environ["OB_TEST_IMAGE"]
            with Path(os.environ["OB_TEST_BAKERY"]).open("a") as file:
                file.write(json.dumps(attributes["pypi"]["packages"]) + "\n")
