"""Clients, settings and lifecycle shared by every process.

Knows servers, not business rules: nothing here says what an event is or who may send one.
"""
