"""The only Faust code: two apps, `dedup` and `project`, over a transport of our own.

Agents decide nothing. What dedup does with a record is `dedup` (pure); what a fold does is handed in by the composition root.
"""
