"""`assistant doctor`: everything that may be wrong around the daemon, and how to mend it.

A check is a function that looks and tells findings; checks.py has the table of them. Nothing here
changes anything, and each check works when the others fail: also with no daemon, or half of one.
"""
