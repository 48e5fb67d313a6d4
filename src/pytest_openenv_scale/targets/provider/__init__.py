"""The target `provider`: OpenEnv's runtime providers, in a process of their own."""
