"""Hostile and damaged inputs: each costs one sentence, never a traceback, a hang, or the machine's memory."""
