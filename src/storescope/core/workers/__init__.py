"""Threads, processes and coroutines that take tasks."""
