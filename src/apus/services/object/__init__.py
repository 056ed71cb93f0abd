"""Accounts, containers and objects on many drives: rings, quorums, hand-offs, repair; no database in the path."""
