"""Names the platform of a wheel that holds a program: any Python, this system."""

import os

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PlatformTag(BuildHookInterface):
    def initialize(self, version, build_data):
        # Set by wheels/build.sh, which looks at the programs.
        build_data["tag"] = f"py3-none-{os.environ['PREFLOW_WHEEL_PLATFORM']}"
        build_data["pure_python"] = False
