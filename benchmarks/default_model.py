"""Print the path of the default model, fetched into .model-cache/ of the repository if need be."""

import sys
from pathlib import Path

from assistantd.models import DEFAULT_MODEL, ModelStore


def main() -> None:
    """Command line."""
    store = ModelStore(Path(__file__).resolve().parent.parent / ".model-cache")
    print(f"looking for {DEFAULT_MODEL} in {store.root}", file=sys.stderr)
    store.pull(DEFAULT_MODEL)
    print(store.resolve(DEFAULT_MODEL))


if __name__ == "__main__":
    main()
