"""The figures of a server: simulated devices in processes of their own, and what they saw.

A run starts a server (or takes one by URL), lets load processes play scenarios with it
and reports latencies as the devices saw them beside the server's CPU and memory.
"""
