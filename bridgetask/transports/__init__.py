"""Carriers of messages and results: a folder for each, imported only when an app names it."""
