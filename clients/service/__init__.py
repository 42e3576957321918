"""The daemon as a service of the operating system: what `assistant service` does.

units.py     what is written, and where: pure, so that --dry-run and packages use the same
checks.py    what would keep it from running, said before anything is changed
systemd.py   systemd is spoken to
launchd.py   macOS
"""
