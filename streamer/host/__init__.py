"""This machine: processes that end with the one that started them, and ports that are free."""
