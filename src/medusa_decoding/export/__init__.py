"""Heads in the layouts of other engines, each with a page that says how it is served and what is lost."""
