"""Messages in the user's language: what the daemon and the clients share for it.

Each of these packages has its own catalogues and an `i18n` module that names them. This one is
below both and imports neither: it knows languages, catalogues, click and wide letters, and no
message. docs/languages.md tells people how to choose a language, and how to add one.
"""
