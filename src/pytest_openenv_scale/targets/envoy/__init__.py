"""The target `envoy`: replicas behind Envoy, its configuration, its answers, who died when."""
