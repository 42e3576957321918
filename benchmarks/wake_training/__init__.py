"""Training of the wake words that assistantd brings along; see __main__.py."""
