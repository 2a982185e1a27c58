"""Profile + Tree -> Plan: every step of a build with its reason. Pure."""
