"""Which version of assistantd this process is.

Read once: an upgrade puts new files beside a process that goes on with the old ones.
"""

from importlib.metadata import version

VERSION = version("assistantd")
