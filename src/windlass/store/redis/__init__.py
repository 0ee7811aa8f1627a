"""The queue store on Redis 7 or Valkey: alone, as a Cluster, or behind Sentinel."""
