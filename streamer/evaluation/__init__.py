"""Recomputing from the log: is Redis right, and what is freshness worth?"""
