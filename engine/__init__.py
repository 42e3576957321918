"""LLaMA inference as a library: a path to a GGUF in, tokens out.

from engine.generate import Engine
"""
