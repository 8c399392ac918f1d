"""Listing the sources of a job: arguments, folders, and files under other names."""
