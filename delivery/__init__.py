"""Webhook delivery: a consumer group that plans, posts signed webhooks, journals every attempt, and retries through delay topics."""
