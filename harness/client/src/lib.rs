//! Open-loop clients of etcd v3's API: the outage probe and the load generator.
