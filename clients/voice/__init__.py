"""The voice client: ears (microphone, wake word, recogniser), a mouth (voices), and the loop.

Start at loop.py. Needs the extra [voice]; loads neither numba nor the engine, and nothing heavy
before it is used.
"""
