"""The target `envoy`: replicas behind Envoy, its configuration, its statistics, and which replica died when."""
