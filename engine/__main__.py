"""`python -m engine MODEL.gguf QUESTION`: one answer without the daemon, to try the engine."""

import argparse
import sys
from pathlib import Path

from engine.errors import EngineError


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m engine", description=__doc__)
    parser.add_argument("model", type=Path, help="a GGUF file of the llama architecture")
    parser.add_argument("question")
    parser.add_argument("--seed", type=int, default=None)
    args = parser.parse_args()
    from engine.generate import Engine
    from engine.sampler import SamplingParams

    try:
        engine = Engine.load(args.model, progress=lambda text, *_: print(text, file=sys.stderr))
        messages = [{"role": "user", "content": args.question}]
        params = SamplingParams(temperature=0.2, max_tokens=256, seed=args.seed)
        for text in engine.generate(engine.chat.encode(messages), params):
            print(text, end="", flush=True)
        print()
        engine.close()
    except EngineError as problem:
        sys.exit(f"engine: {problem}")


if __name__ == "__main__":
    main()
