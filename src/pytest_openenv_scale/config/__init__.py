"""What is asked for: settings, limits, workload and plan, as checked, frozen values. May import core."""
