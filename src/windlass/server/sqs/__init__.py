"""Queues over the SQS protocol: the same queues, messages and leases, for clients that speak that."""
