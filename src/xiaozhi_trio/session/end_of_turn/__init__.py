"""When a pause is the end of what somebody says: one strategy a module."""
